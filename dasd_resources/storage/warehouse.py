"""The warehouse: the lake as the resource that assets are given."""

from dagster import ConfigurableResource

from dasd_resources.storage.lake import Lake, Params, Reading, Row, Transaction

__all__ = ["Params", "Reading", "Row", "Transaction", "Warehouse"]


class Warehouse(ConfigurableResource, Lake):
    """The tables under `home`, for assets."""

    home: str
