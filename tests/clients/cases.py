"""All clients."""

from __future__ import annotations

import cases_git
import cases_java
import cases_node
import cases_packages
import cases_python
import cases_run
import cases_tools
from case import Case

FAMILIES = (cases_tools, cases_git, cases_packages, cases_python, cases_node, cases_java, cases_run)


def cases() -> list[Case]:
    """Every client, allowed and refused."""
    return [case for family in FAMILIES for case in family.cases()]
