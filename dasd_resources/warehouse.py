"""The warehouse: the lake as the resource that assets are given."""

from dagster import ConfigurableResource

from dasd_resources.connections import UnknownSnapshot, attach
from dasd_resources.lake import Lake, Params, Reading, Row, Transaction, migrate

__all__ = ["Params", "Reading", "Row", "Transaction", "UnknownSnapshot", "Warehouse", "attach", "migrate"]


class Warehouse(ConfigurableResource, Lake):
    """The tables under `home`, for assets."""

    home: str
