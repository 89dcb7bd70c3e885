"""All checkers, one for each promise and some beside, by their names."""

from .base import Checker
from .linearizable import Linearizable
from .p1_agreement import Agreement
from .p2_durable import Durable
from .p3_exclusion import Exclusion
from .p4_at_least import AtLeast
from .p5_tokens_grow import TokensGrow
from .p6_exactly_once import ExactlyOnce
from .p7_fair import Fair
from .p8_loss_told import LossTold
from .p9_definite import Definite
from .p10_bounded import Bounded
from .p11_hostile_input import HostileInput
from .stops import Stops
from .wide_p1_restored import WideRestored
from .wide_p3_exclusion import WideClosed, WideExclusion
from .wide_p4_configured import WideConfigured
from .wide_p4_pinned import WidePinned
from .wide_p5_registers import WideRegisters
from .wide_p6_named import WideNamed, WideStolen, WideTransactions
from .wide_p7_fair import WideDeadlocks, WideFair
from .wide_p10_bounded import WideBounded

WIDE: tuple[type[Checker], ...] = (
    WideRestored,
    WideExclusion,
    WideClosed,
    WidePinned,
    WideConfigured,
    WideRegisters,
    WideTransactions,
    WideNamed,
    WideStolen,
    WideFair,
    WideDeadlocks,
    WideBounded,
)
"""Those that look at worlds in which programs use the whole lease model."""

ALL: tuple[type[Checker], ...] = (
    Agreement,
    Durable,
    Exclusion,
    AtLeast,
    TokensGrow,
    ExactlyOnce,
    Fair,
    LossTold,
    Definite,
    Bounded,
    HostileInput,
    Linearizable,
    Stops,
    *WIDE,
)
"""In the order of the promises. Liveness is demanded by the world itself."""

BY_NAME = {checker.__name__: checker for checker in ALL}
