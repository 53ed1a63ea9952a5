"""Who may do what. One table, for the command line and for every page."""

from __future__ import annotations

from ..errors import TrueupError
from ..store.people import PersonRole

RIGHTS: dict[str, tuple[PersonRole, ...]] = {
    "judge": ("owner", "manager", "annotator"),  # be handed items, see and revise one's own work
    "see progress": ("owner", "manager", "viewer"),  # states of items, judgements, people by pseudonym
    "see quality": ("owner", "manager", "viewer"),  # agreement and figures of each judge
    "see judgements": ("owner", "manager"),  # what others said, golds, names of models
    "adjudicate": ("owner", "manager"),  # decide an item, send it back, clear a quarantine
    "manage collections": ("owner", "manager"),  # open, close, guideline
    "try models": ("owner", "manager"),  # put prompts to models and checkpoints: it costs computing
    "invite": ("owner", "manager"),  # annotators and viewers
    "export": ("owner", "manager"),  # judgements out of the workspace
    "see runs": ("owner", "manager", "viewer"),  # what is trained and measured, with samples and names of models
    "steer runs": ("owner", "manager"),  # stop one, take one up again
    "manage people": ("owner",),  # roles, deactivate, anonymise, invite managers and owners, demographics as counts
    "manage tokens": ("owner",),  # let programs in
    "audit": ("owner",),
}
INVITES: dict[PersonRole, tuple[PersonRole, ...]] = {
    "owner": ("owner", "manager", "annotator", "viewer"),
    "manager": ("annotator", "viewer"),
}


class NotAllowed(TrueupError):
    """Somebody asked for what their role does not include."""


def may(role: PersonRole, what: str) -> bool:
    """A right that is not in the table is a mistake of ours, never a yes."""
    return role in RIGHTS[what]


def may_invite(role: PersonRole, invited: PersonRole) -> bool:
    """Nobody hands out more than they have themselves."""
    return invited in INVITES.get(role, ())


def require(role: PersonRole, what: str) -> None:
    if not may(role, what):
        raise NotAllowed(f"a {role} may not do this ({what})", f"ask somebody who is {' or '.join(RIGHTS[what])}")
