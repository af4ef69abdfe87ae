"""The families of the school: each is one domain of its questions."""

from dasd_resources.school.letters import LETTERS
from dasd_resources.school.sums import SUMS

FAMILIES = (SUMS, LETTERS)
FAMILY_OF_DOMAIN = {family.domain: family for family in FAMILIES}
