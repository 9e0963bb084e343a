"""What a peer lets us list: asked for capacity, which can be had without, and for what nothing works without.

Called by `session`.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from vnode.errors import ApiError, Rejected, Unauthorized
from vnode.kube.client import Client, Resource

log = logging.getLogger(__name__)

ASK_LIMIT_S: Final = 5.0


async def may_list(peer: Client, resource: Resource) -> bool:
    """A peer that does not answer is taken to allow it; should it refuse later, the session starts anew.

    So is one that is not ready: an apiserver that has just started refuses everybody, having read no roles yet.
    """
    try:
        await peer.get_path("/readyz", limit_s=ASK_LIMIT_S)
    except Rejected:
        pass  # we may not ask that: then its word on the resource has to do
    except ApiError:
        return True
    try:
        async with asyncio.timeout(ASK_LIMIT_S):
            await peer.list_page(resource, "", {"limit": "1"})
    except Unauthorized:
        return True  # that is about the credential, which is being renewed
    except Rejected as error:
        log.warning("capacity is not known from the peer", extra={"resource": resource.plural, "error": str(error)})
        return False
    except (ApiError, TimeoutError):
        return True
    return True


async def watch_refusals(
    peer: Client,
    resources: Collection[Resource],
    places: Collection[str],
    synced: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Until the stores are `synced`, `tell` which list the peer refuses in which of `places`; "" when it refuses none.

    A watch that is refused only waits: somebody may give the right. This says what it waits for.
    """
    while True:
        await asyncio.sleep(ASK_LIMIT_S)  # long enough for stores to be filled: as a rule nothing is ever asked
        if synced():
            tell("")
            return
        tell(await _first_refusal(peer, [(place, resource) for place in places for resource in resources]))


async def _first_refusal(peer: Client, lists: Iterable[tuple[str, Resource]]) -> str:
    for place, resource in lists:
        try:
            await peer.list_page(resource, place, {"limit": "1"})
        except Unauthorized:
            return ""
        except Rejected as error:
            return error.message
        except ApiError:
            return ""
    return ""
