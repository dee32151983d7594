"""``stylecli weights``: networks that others published, to measure with or to train from: what is
here, how to get the rest."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.cli.options import JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, holds_commands

app = holds_commands(
    """List, fetch, add and verify feature networks; fetch networks to train from.

    Example: stylecli weights

    Metrics look at pictures with feature networks. Training can start from published networks
    (stylecli weights networks). stylecli downloads nothing unless asked: a network comes from an
    installed package, from a file that you add, or from fetch.
    """,
    runs_alone=True,
)

NameArgument = Annotated[
    str, typer.Argument(help="Name of a feature network, as in the list.", metavar="name")
]


@app.callback()
def list_weights(context: typer.Context, json: JsonOption = False) -> None:
    """List every feature network and whether it is on this machine."""
    if context.invoked_subcommand is not None:
        return
    from stylecli import weights
    from stylecli.cache_folder import cache_folder

    output = Output(json=json)
    known = [weights.describe(name) for name in weights.NETWORKS]
    rows = []
    for network in known:
        record = network["record"]
        place = network["here"] or f"missing: {network['step']}"
        sha256 = record["sha256"][:12] if record else "-"
        rows.append((network["name"], ", ".join(network["used_by"]), sha256, place))
    document = {"cache": str(cache_folder()), "networks": known}
    lines = output.table(("network", "used by", "sha256", "where"), rows)
    output.result(document, lines)


@app.command("add", cls=PlainCommand)
def add_weights(
    path: Annotated[Path, typer.Argument(help="A weight file, as published.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recognise a weight file by its content and copy it into the cache.

    Example: stylecli weights add pt_inception-2015-12-05-6726825d.pth
    """
    from dataclasses import asdict

    from stylecli.errors import WeightsError
    from stylecli.workspace import missing

    if not path.exists():
        raise WeightsError(missing(path, "give a weight file"))
    from stylecli.interop.feature_weights import add

    output = Output(json=json, quiet=quiet)
    record = add(path)
    if not record.published:
        output.warn(
            f"{path} has SHA-256 {record.sha256[:12]}..., which matches no published file: do not "
            f"compare numbers made with it with other people's"
        )
    output.result(asdict(record), [f"{record.name}  {record.sha256}"])


@app.command("fetch", cls=PlainCommand)
def fetch_weights(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a feature network, or of a network in stylecli weights networks.",
            metavar="name",
        ),
    ],
    url: Annotated[
        str | None,
        typer.Option(
            help="Address to download from. A feature network must have the published SHA-256."
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download a feature network, or a network to start training from, where it is published.

    Example: stylecli weights fetch inception-2015-12-05

    Run the same command to continue a download that broke off. A file whose SHA-256 is not the
    published one is not used.
    """
    import shlex
    from dataclasses import asdict

    from stylecli.errors import Interrupted
    from stylecli.interop.feature_weights import fetch
    from stylecli.interop.published_networks import PUBLISHED, fetch_network

    output = Output(json=json, quiet=quiet)
    try:
        with output.progress(name, "MB") as report:
            if name in PUBLISHED:
                path = fetch_network(name, url=url, progress=report)
            else:
                record = fetch(name, url=url, progress=report)
    except KeyboardInterrupt:
        again = f"{name} --url {shlex.quote(url)}" if url else name
        raise Interrupted(
            f"stopped; the part downloaded is kept: run stylecli weights fetch {again} to continue"
        ) from None
    if name in PUBLISHED:
        from stylecli.weights import file_sha256

        sha256 = file_sha256(path)
        output.note(f"to train from it: stylecli train --resume {path} photos/")
        output.result({"name": name, "path": str(path), "sha256": sha256}, [str(path)])
        return
    output.result(asdict(record), [f"{record.name}  {record.sha256}"])


@app.command("networks", cls=PlainCommand)
def list_networks(json: JsonOption = False) -> None:
    """List published networks that training can start from.

    Example: stylecli weights networks
    """
    from dataclasses import asdict

    from stylecli.interop.published_networks import PUBLISHED

    output = Output(json=json)
    rows = [
        (row.name, row.family, f"{row.resolution} px", row.shows, row.licence,
         "checked" if row.verified else "unverified: needs --url", row.address)
        for row in PUBLISHED.values()
    ]  # fmt: skip
    headings = ("network", "family", "size", "shows", "licence", "address is", "address")
    document = {"networks": [asdict(row) for row in PUBLISHED.values()]}
    output.result(document, output.table(headings, rows))


@app.command("verify", cls=PlainCommand)
def verify_weights(json: JsonOption = False) -> None:
    """Hash every file in the cache and compare it with the recorded SHA-256.

    Example: stylecli weights verify
    """
    from stylecli import weights
    from stylecli.errors import WeightsError

    output = Output(json=json)
    rows, found, damaged = [], {}, []
    for name in weights.NETWORKS:
        try:
            record = weights.verify(name)
        except WeightsError as error:
            damaged.append(str(error))
            state = "damaged"
        else:
            if record is None:
                continue
            state = "as published" if record.published else "undamaged, but not a published file"
        found[name] = state
        rows.append((name, state))
    lines = output.table(("network", "state"), rows) if rows else ["the cache is empty"]
    output.result({"networks": found}, lines)
    if damaged:
        raise WeightsError("; ".join(damaged))


@app.command("explain", cls=PlainCommand)
def explain_weights(name: NameArgument, json: JsonOption = False) -> None:
    """Explain what a feature network is, where its file is published, and how to add it.

    Example: stylecli weights explain inception-2015-12-05
    """
    from stylecli import weights

    network = weights.describe(name)
    record = network["record"]
    lines = [
        f"{name}: {network['what']}",
        f"used by    {', '.join(network['used_by'])}",
        *(
            f"file       {file['name']} is {file['where']}, "
            f"SHA-256 {file['sha256'][:16]}{'...' * (len(file['sha256']) > 16)}"
            for file in network["files"]
        ),
        *(f"address    {file['url']}" for file in network["files"] if file["url"]),
        f"licence    {network['licence']}",
        f"here       {network['here'] or 'no'}",
    ]
    if record:
        lines.append(f"read from  {record['source']}  (SHA-256 {record['sha256']})")
    if not network["here"]:
        lines.append(f"to get it  {network['step']}")
    Output(json=json).result(network, lines)
