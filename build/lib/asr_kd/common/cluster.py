"""An executor whose jobs run on the workers of a Dask cluster."""

from concurrent.futures import Executor
from typing import Any

from asr_kd.common.errors import UserError


def connect(scheduler: str, resources: str = "") -> Executor:
    """An executor on a Dask cluster, whose workers must see the same folders as this process.

    Args:
        scheduler: its address, such as tcp://HOST:8786.
        resources: what each job occupies on a worker, such as "gpu=1".

    Raises:
        UserError: Dask is not installed, no scheduler answers, ``resources`` is malformed, or no worker offers them.
    """
    try:
        from distributed import Client
        from distributed.cfexecutor import ClientExecutor
    except ImportError:
        raise UserError("--scheduler needs Dask: pip install 'asr_kd[cluster]'") from None
    required = _parse_resources(resources)
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {scheduler} ({error}): start one (dask scheduler) and its workers "
            "(dask worker ADDRESS --nthreads 1), or leave out --scheduler"
        ) from None
    offers = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    if not any(all(offer.get(name, 0) >= amount for name, amount in required.items()) for offer in offers):
        client.close()
        raise UserError(
            f"no worker of {scheduler} has {resources}: start some (dask worker ADDRESS --resources {resources})"
            if offers
            else f"{scheduler} has no workers: start some (dask worker ADDRESS --nthreads 1)"
        )

    class ConnectedExecutor(ClientExecutor):
        """Closes its connection when it is shut down."""

        def shutdown(self, *args: Any, **kwargs: Any) -> None:
            super().shutdown(*args, **kwargs)
            client.close()

    return ConnectedExecutor(client, **({"resources": required} if required else {}))


def _parse_resources(text: str) -> dict[str, float]:
    resources = {}
    for item in filter(None, text.split(",")):
        name, _, amount = item.partition("=")
        if not name or not amount.replace(".", "", 1).isdigit():
            raise UserError(f"--resources takes NAME=NUMBER[,NAME=NUMBER...], not {text!r}: correct the flag")
        resources[name] = float(amount)
    return resources
