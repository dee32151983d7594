"""Help with headings: options of one theme stand together, in plain text."""

from typing import Any

from typer.core import TyperCommand


class GroupedCommand(TyperCommand):
    """A command that lists its options under the ``rich_help_panel`` each of them names.

    Headings come in the order of the parameters; options that name none come last. Typer itself
    draws panels only with rich's boxes, which no log and no documentation page can hold.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then one section per heading."""
        arguments, sections, rest = [], {}, []  # type: ignore[var-annotated]
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            heading = getattr(parameter, "rich_help_panel", None)
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif heading:
                sections.setdefault(heading, []).append(record)
            else:
                rest.append(record)
        for heading, records in {"Arguments": arguments, **sections, "Options": rest}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
