"""`imports`: responses that are landed instead of sampled, and what their rows leave unsaid."""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from dasd_resources.recipe.parts import Part

Temperature = Annotated[float, Field(gt=0, le=2)]


class Imports(Part):
    """With this section, landed files bring the responses, and the teacher samples none.

    A row says the temperature it was sampled at, or the pattern of its file's name does (`{"*stage2*": 1.0}`; the first
    that matches), or `temperature`. Nucleus and token limit are those of `generation`.
    """

    temperature: Temperature | None = None
    """Of rows that name none."""
    temperatures: dict[str, Temperature] = Field(default={})
    """Pattern of a file's name -> the temperature of its rows."""

    def temperature_of(self, file: str) -> float | None:
        """The temperature of the rows of a file that name none."""
        matching = (value for pattern, value in self.temperatures.items() if fnmatchcase(file, pattern))
        return next(matching, self.temperature)
