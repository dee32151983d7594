"""The documentation: complete, equal to what the commands say, without dead links."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stylecli
from tests.update_help import BLOCK, DOCS, commands, help_block, help_text

ROOT = DOCS.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "NOTICE", *sorted(DOCS.glob("**/*.md"))]
COMMANDS = commands()
ALL_CALLS = [
    (name, *child)
    for name, command in COMMANDS.items()
    for child in [(), *((sub,) for sub in getattr(command, "commands", {}))]
]
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
# Folders of somebody's machine; /dev/null, /path/to and the like may be written about.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|Users|work|tmp|opt|mnt|usr/local)/\S*")


def test_every_command_has_a_page_with_its_help_and_a_row_in_the_readme() -> None:
    table = README.read_text(encoding="utf-8")
    for name in COMMANDS:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")

        assert text.startswith(f"# stylecli {name}\n")
        assert BLOCK.findall(text) == [help_block(name)], "run python tests/update_help.py"
        assert f"| [`{name}`](docs/{name}.md) |" in table


def test_help_opens_with_a_sentence_and_an_example() -> None:
    for words in ALL_CALLS:
        paragraphs = help_text(*words).split("\n\n")

        assert paragraphs[1].rstrip().endswith("."), words
        assert paragraphs[2].startswith(f"  Example: stylecli {' '.join(words)}")


def test_pages_show_what_a_terminal_of_100_columns_shows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stylecli", "metrics", "--help"],
        env={**os.environ, "COLUMNS": "100"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.replace("python -m stylecli", "stylecli") == help_text("metrics")


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_every_benchmark_is_in_the_table() -> None:
    folder = ROOT / "tests" / "benchmarks"
    named = re.findall(r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text("utf-8"), re.M)

    assert sorted(named) == sorted(path.name for path in folder.glob("*.py"))


def test_links_lead_to_files_that_exist() -> None:
    dead = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        links = ["".join(found) for found in LINK.findall(text)]
        local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
        dead += [f"{page.name}: {link}" for link in local if not (page.parent / link).exists()]

    assert dead == []


def test_install_lines_name_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [*PAGES, ROOT / "Dockerfile", *(ROOT / "stylecli").rglob("*.py")]
    extra = re.compile(r"(?:\.whl\)?|stylecli|-e ['\"]\.)\[([a-z,]+)\]")
    named = {
        path.relative_to(ROOT).as_posix(): set(
            ",".join(extra.findall(path.read_text(encoding="utf-8"))).split(",")
        )
        for path in files
    }

    assert {"cuda", "demo", "metrics"} <= named["README.md"] & named["Dockerfile"]
    known = {"", *project["optional-dependencies"]}
    assert {name: words - known for name, words in named.items() if words - known} == {}


def test_the_version_of_the_pages_is_that_of_the_package() -> None:
    wheel = re.compile(r"stylecli-([\w.]+)-py3-none-any\.whl")
    named = {path.name: wheel.findall(path.read_text(encoding="utf-8")) for path in PAGES}
    headings = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    upgrade = (DOCS / "upgrading.md").read_text(encoding="utf-8").splitlines()[0]

    assert named["README.md"]
    assert {version for found in named.values() for version in found} == {stylecli.__version__}
    assert headings[0] == stylecli.__version__
    assert upgrade == f"# From {headings[1]} to {headings[0]}"


CODE = re.compile(r"`([^`\n]+)`|^ {4}(\S.*)$", re.MULTILINE)
# What a shell sees as one call: up to a sign of its own, or a remark.
CALL = re.compile(r"(?:^|[\s`/(])stylecli ((?:[^;|&#<>`\n]|&(?!&))*)")


def test_every_command_in_a_page_exists_with_its_options() -> None:
    seen, unknown = 0, []
    for page in (page for page in PAGES if page.name != "CHANGELOG.md"):  # it has those of the past
        for code in map("".join, CODE.findall(page.read_text(encoding="utf-8"))):
            for call in CALL.findall(code):
                name, *words = [*call.split(), ""]
                seen += name in COMMANDS
                if name not in COMMANDS:
                    unknown += [call] * (name.isalpha() and name != "import")
                    continue
                command = COMMANDS[name]
                command = getattr(command, "commands", {}).get(words[0], command)
                known = {
                    one for param in command.params for one in param.opts + param.secondary_opts
                }
                options = {word.partition("=")[0].strip("`.,()'\"") for word in words}
                asked = {one for one in options - known - {"--help"} if one[:2] == "--"}
                unknown += [f"{page.name}: {call} ({one})" for one in asked]

    assert unknown == []
    assert seen > 150


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_job_script_is_a_shell_script_whose_options_exist() -> None:
    script = ROOT / "docs" / "train.slurm"

    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    command = next(line for line in script.read_text("utf-8").splitlines() if "srun " in line)
    help_of_train = help_text("train")
    options = re.findall(r" (--[a-z-]+)", command.partition("stylecli train")[2])
    assert options and all(option in help_of_train for option in options)


def test_no_page_names_a_folder_of_the_machine_it_was_written_on() -> None:
    named = {page.name: MACHINE_PATH.findall(page.read_text(encoding="utf-8")) for page in PAGES}

    assert {name: paths for name, paths in named.items() if paths} == {}


def test_the_readmes_python_example_runs(
    tmp_path: Path, tiny_network_file: Path, tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (dataset,) = re.findall(r"open_dataset\(\"(\S+?)\"\)", example)
    network = "demo/run/network-snapshot-000000000.safetensors"
    (tmp_path / network).parent.mkdir(parents=True)
    (tmp_path / network).symlink_to(tiny_network_file)
    (tmp_path / dataset).symlink_to(tiny_lmdb)

    exec(compile(example, "README.md", "exec"), {})

    assert list(tmp_path.glob("*.png"))


def test_the_table_of_bands_is_what_networks_have() -> None:
    from stylecli.networks.registry import make_config
    from stylecli.seeds import format_seeds
    from stylecli.styles import style_bands

    presets = {"StyleGAN": "f", "StyleGAN2": "stylegan2", "StyleGAN3": "stylegan3-r"}
    text = (DOCS / "which-file.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 18
    for name, side, *bands in rows:
        config = make_config(presets[name], resolution=int(side))
        layers = style_bands(config.style_sides).values()
        assert [format_seeds(band) for band in layers] == bands, (name, side)


def test_every_family_of_files_has_a_row() -> None:
    from stylecli.interop import families

    text = (DOCS / "which-file.md").read_text(encoding="utf-8")
    named = [value for value in vars(families).values() if isinstance(value, families.Family)]
    for table in (families._STYLEGAN2, families._STYLEGAN3, families._TF):
        named += table.values()
    assert len(named) >= 11
    for family in named:
        short = re.sub(r"\((rosinality|huangzh13|lucidrains)/.*\)", r"(\1/…)", family.name)
        (row,) = [line for line in text.splitlines() if f"| {short} |" in line]
        assert "| yes" in row, family.name


def test_the_version_has_one_home_and_documents_name_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "stylecli/__init__.py"
    wheels = {
        wheel
        for page in PAGES
        for wheel in re.findall(r"stylecli-([\d.]+)-py3", page.read_text("utf-8"))
    }
    assert wheels == {stylecli.__version__}
