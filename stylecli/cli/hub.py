"""``stylecli hub``: networks and datasets to and from the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli import hub
from stylecli.cli.options import ForceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, holds_commands
from stylecli.cli.refusals import find_and_check
from stylecli.errors import Interrupted, UsageError, plural

app = holds_commands(
    """Put networks and datasets on the Hugging Face hub, and get them from there.

    Example: stylecli hub push runs/00000-cats alice/cats

    Any --network may also be hub:OWNER/NAME. Log in with hf auth login, or set HF_TOKEN: stylecli
    asks for no token and keeps none.
    """
)


@app.command("push", cls=PlainCommand)
def push_to_hub(
    source: Annotated[
        Path,
        typer.Argument(
            help="A network (any file, or a run's folder), or a dataset of pack.", metavar="source"
        ),
    ],
    repository: Annotated[
        str, typer.Argument(help="OWNER/NAME on the hub; made if missing.", metavar="repository")
    ],
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            help="What you put it under, such as 'CC BY 4.0'. Default: what the file says.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Write the files to this new folder, and send nothing."),
    ] = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Put a network or a dataset on the hub, with a card that says what is known of it.

    Example: stylecli hub push datasets/cats.lmdb alice/cats --private

    Sends a network as safetensors without the state of its training, a dataset as it is, a sample
    sheet, and a card: data and licences, schedule, metrics with their definitions, limits. Look at
    them first with --into. Run the same command to continue an upload that broke off.
    """
    output = Output(json=json, quiet=quiet)
    hub.parse_address(repository)
    if hub.dataset_folder(source) is None:
        find_and_check(source, output)
    from stylecli.publishing import push

    try:
        with output.progress("drawing", "pictures") as report:
            done = push(
                source, repository, licence=licence, private=private, into=into, progress=report
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped, nothing was published: run the same command to continue"
        ) from None
    if done.licence is None:
        output.warn("the card states no licence, so nobody may use it: add --licence")
    if done.pushed is None:
        output.result(done.to_dict(), [str(into)])
        return
    output.note(f"commit {done.pushed.commit[:12]}, every file compared with the hub's hash")
    output.result(done.to_dict(), [done.pushed.page, done.address])


@app.command("pull", cls=PlainCommand)
def pull_from_hub(
    repository: Annotated[
        str,
        typer.Argument(
            help="OWNER/NAME of a network, or datasets/OWNER/NAME; @REVISION and :FILE may follow.",
            metavar="repository",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Also write a network to this file; where a dataset goes. Default: the cache; "
            "datasets/NAME.lmdb.",
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Get a network or a dataset from the hub, or its newest version.

    Example: stylecli hub pull alice/cats

    A network is kept in the cache, where --network hub:OWNER/NAME finds it, without the hub. Only
    safetensors and datasets of stylecli are taken, and only with the hash that the hub states. Run
    the same command to continue a download that broke off.
    """
    output = Output(json=json, quiet=quiet)
    address = hub.parse_address(repository)
    try:
        if address.kind == "dataset":
            _pull_dataset(address, out, force, output)
        else:
            _pull_network(address, out, force, output)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; what has come is kept: run the same command to continue"
        ) from None


def _pull_network(address: hub.Address, out: Path | None, force: bool, output: Output) -> None:
    import shutil
    from dataclasses import asdict

    from stylecli.files import replacing
    from stylecli.networks.headers import check_header

    if out is not None and out.suffix.lower() != ".safetensors":
        raise UsageError(f"--out {out} does not end in .safetensors, the only format there is")
    if out is not None and out.exists() and not force:
        raise UsageError(f"{out} exists: give another --out, or --force")
    with output.progress(str(address), "MB") as report:
        record = hub.pull_network(address, force=force, progress=report)
    check_header(Path(record.path))
    path = Path(record.path)
    if out is not None:
        with replacing(out, record.size) as temporary:
            shutil.copyfile(path, temporary)
        path = out
    output.note(f"to draw with it: stylecli generate --network {out or address}")
    output.result({**asdict(record), "path": str(path)}, [f"{path}  {record.sha256}"])


def _pull_dataset(address: hub.Address, out: Path | None, force: bool, output: Output) -> None:
    from stylecli.publishing import pull_dataset

    target = out or Path("datasets") / f"{address.name}.lmdb"
    if target.exists() and not force:
        raise UsageError(f"{target} exists: give another --out, or --force")
    with output.progress(str(address), "MB") as report:
        dataset = pull_dataset(address, target, force=force, progress=report)
    facts = {"path": str(target), "pictures": len(dataset),
             **dataset.grid.facts(dataset.resolution), "digest": dataset.digest}  # fmt: skip
    output.result(facts, [str(target), f"{plural(len(dataset), 'picture')}, {dataset.size} px"])
