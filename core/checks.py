"""The check that nothing is wrong with a command in itself, whatever the state of the service."""

from typing import Any

from . import limits
from .commands import (
    ANY_VERSION,
    FOREVER,
    KEEP,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Cancel,
    Check,
    Claim,
    CloseSession,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DescribeNamespace,
    DropNamespace,
    EndSession,
    EraseRegister,
    GetRegister,
    HeldBy,
    KeepAlive,
    ListClaims,
    ListRecords,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
    PutRegister,
    ReadEvents,
    RegisterIs,
    Release,
    Renew,
    Step,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
    Validate,
)
from .encoding import INT_MAX, encode
from .errors import BadRequest
from .resources import Mode, Resource, reduced
from .results import LISTED


def check(operation: Operation) -> None:
    """Raise what is wrong with an operation in itself: it may hold whatever a caller of the client has given it.

    Raises:
        BadRequest: a name, size, count or duration is of a wrong type or out of bounds; the text names the bound.
    """
    match operation:
        case OpenSession(key, timeout_ms, description, namespace):
            _check_namespace(namespace)
            _check_session(key, timeout_ms, description)
        case AttachSession(session, key, attach, timeout_ms, description, new_key):
            _check_number("session", session)
            _check_session(key, timeout_ms, description)
            _check_session(new_key or key, timeout_ms, description)
            _within("attach number", attach, 1, limits.ATTACHES_MAX)
        case CloseSession():
            pass  # nothing can be wrong with it
        case EndSession(session):
            _check_number("session", session)
        case KeepAlive():
            raise BadRequest("signs of life are gathered by the gateway; a client sends a ping")
        case Ping(claims):
            for claim in claims:
                _check_number("claim", claim)
            if len(claims) > limits.CLAIMS_PER_PING_MAX:
                raise BadRequest(f"a ping asks for at most {limits.CLAIMS_PER_PING_MAX} claims, not {len(claims)}")
        case Claim():
            _check_claim(operation)
        case Cancel(claim):
            _check_number("claim", claim)
        case Amend(claim, count, _, wait_ms, _, data):
            _check_number("claim", claim)
            if count != KEEP:
                _within("count", count, 1, limits.SEMAPHORE_LIMIT_MAX)
            if wait_ms not in (KEEP, FOREVER):
                _within_time("wait", wait_ms, 0, limits.WAIT_MS_MAX)
            _check_data(data)
        case Release(token) | Adopt(token) | Validate(token):
            _check_number("token", token)
        case Break(token, reason):
            _check_number("token", token)
            _check_text("a reason", reason, limits.DESCRIPTION_BYTES_MAX)
        case Renew(token, ttl_ms):
            _check_number("token", token)
            if ttl_ms:
                _within_time("ttl", ttl_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX)
        case Transact(checks, steps):
            _check_transaction(checks, steps)
        case CreateNamespace(name, config) | AlterNamespace(name, config):
            _check_namespace(name)
            _check_config(config)
        case DropNamespace(name) | DescribeNamespace(name):
            _check_namespace(name)
        case ListClaims(namespace, after, limit):
            _check_page(namespace, after, limit)
        case ListRecords(kind, namespace, after, limit):
            if kind not in LISTED:
                raise BadRequest(f"there is no list of {kind!r}, only of {', '.join(LISTED)}")
            _check_page(namespace, after, limit)
        case ReadEvents(namespace, path, _, after, limit):
            if namespace != "":
                check_place(namespace, path)
            elif path:
                raise BadRequest("a path is in a namespace; without one all events are meant")
            _check_number("revision", after)
            _within("page size", limit, 1, limits.EVENT_PAGE_MAX)
        case _:
            _check_about_a_place(operation)


def _check_about_a_place(operation: Any) -> None:
    check_place(operation.namespace, operation.path)
    match operation:
        case CreateSemaphore(_, _, limit, data):
            _within("limit", limit, 1, limits.SEMAPHORE_LIMIT_MAX)
            _check_data(data)
        case UpdateSemaphore(_, _, data):
            _check_data(data)
        case Pin(_, _, entity) | Unpin(_, _, entity):
            _check_text("an entity", entity, limits.NAME_BYTES_MAX)
        case PutRegister(_, _, token, version, data):
            _check_number("token", token)
            _check_version(version)
            _check_data(data)
        case EraseRegister(_, _, token, version):
            _check_number("token", token)
            _check_version(version)
        case HeldBy(_, _, holder):
            check_holder(holder)
        case RegisterIs(_, _, version):
            _check_version(version)
        case Describe() | DeleteSemaphore() | GetRegister() | Unheld():
            pass
        case _:
            raise BadRequest(f"{type(operation).__name__} is no operation")


def _check_claim(claim: Claim) -> None:
    _check_namespace(claim.namespace)
    if not 1 <= len(claim.resources) <= limits.RESOURCES_PER_CLAIM_MAX:
        raise BadRequest(
            f"a claim asks for 1 to {limits.RESOURCES_PER_CLAIM_MAX} resources, not {len(claim.resources)}"
        )
    for resource in claim.resources:
        check_resource(resource)
    if len(claim.resources) > 1:
        size = sum(len(segment.encode()) for resource in claim.resources for segment in resource.path)
        if size > limits.CLAIM_PATHS_BYTES_MAX:
            raise BadRequest(f"the paths of a claim may have {limits.CLAIM_PATHS_BYTES_MAX} bytes in all, not {size}")
        _check_set(claim.resources)
    check_holder(claim.holder)
    _check_data(claim.data)
    check_flag("detached", claim.detached)
    if claim.ttl_ms:
        _within_time("ttl", claim.ttl_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX)
    elif claim.detached:
        raise BadRequest("a detached claim needs a ttl: nothing else would ever end it")
    if claim.wait_ms != FOREVER:
        _within_time("wait", claim.wait_ms, 0, limits.WAIT_MS_MAX)
    if claim.max_hold_ms:
        _within_time("maximum hold", claim.max_hold_ms, limits.TTL_MS_MIN, limits.MAX_HOLD_MS_MAX)
    _check_number("chain", claim.chain)


def check_resource(resource: Resource) -> None:
    """Raise if nobody can want this of a path.

    Raises:
        BadRequest: with the reason.
    """
    check_path(resource.path)
    match resource.mode:
        case Mode.COUNT:
            _within("count", resource.count, 1, limits.SEMAPHORE_LIMIT_MAX)
            _within("limit", resource.limit, 0, limits.SEMAPHORE_LIMIT_MAX)
            if 0 < resource.limit < resource.count:
                raise BadRequest(f"a count of {resource.count} is more than the limit {resource.limit}: never granted")
        case Mode.WRITE | Mode.READ | Mode.OBSERVE:
            if resource.count or resource.limit:
                raise BadRequest("only units of a semaphore are counted")
        case _:
            raise BadRequest(f"{resource.mode} is no mode of a claim")


def _check_set(resources: tuple[Resource, ...]) -> None:
    if any(resource.mode == Mode.OBSERVE for resource in resources):
        raise BadRequest("an observer observes one resource alone")
    paths = [resource.path for resource in reduced(resources)]
    if len(dict.fromkeys(paths)) < len(paths):
        raise BadRequest("a claim counts units of a semaphore once, and does not read it beside that")


def _check_session(key: bytes, timeout_ms: int, description: str) -> None:
    if description != "":
        _check_text("a description", description, limits.DESCRIPTION_BYTES_MAX)
    if len(key) != limits.SESSION_KEY_BYTES:
        raise BadRequest(f"a session key has {limits.SESSION_KEY_BYTES} bytes, not {len(key)}")
    _within_time("session timeout", timeout_ms, limits.SESSION_TIMEOUT_MS_MIN, limits.SESSION_TIMEOUT_MS_MAX)


def _check_transaction(checks: tuple[Any, ...], steps: tuple[Any, ...]) -> None:
    for what, parts in (("checks", checks), ("steps", steps)):
        if len(parts) > limits.TRANSACTION_ITEMS_MAX:
            raise BadRequest(f"a transaction has at most {limits.TRANSACTION_ITEMS_MAX} {what}, not {len(parts)}")
    if not steps and not checks:
        raise BadRequest("a transaction needs a check or a step")
    for one in checks:
        check_part(one, Check)
    for one in steps:
        check_part(one, Step)
    touched = [touched_by(step) for step in steps]
    if len(dict.fromkeys(touched)) < len(touched):
        raise BadRequest("two steps of a transaction may not touch the same thing")
    size = len(encode(Transact(checks, steps)))
    if size > limits.TRANSACTION_BYTES_MAX:
        raise BadRequest(f"a transaction has at most {limits.TRANSACTION_BYTES_MAX} bytes, not {size}")


def check_part(part: Any, kinds: Any) -> None:
    """Raise what is wrong with a part of a transaction in itself, which is to be of one of these kinds.

    Raises:
        BadRequest: with the reason.
    """
    if not isinstance(part, kinds):
        raise BadRequest(f"{type(part).__name__} has no place in a transaction")
    if isinstance(part, TokenHeld):
        _check_number("token", part.token)
    else:
        check(part)


def touched_by(step: Any) -> tuple[Any, ...]:
    """Return what a step of a transaction touches: no other step of it may touch the same."""
    match step:
        case PutRegister(namespace, path) | EraseRegister(namespace, path):
            return ("register", namespace, path)
        case Pin(namespace, path, entity) | Unpin(namespace, path, entity):
            return ("pin", namespace, path, entity)
        case UpdateSemaphore(namespace, path):
            return ("semaphore", namespace, path)
        case _:
            return ("token", step.token)


def _check_config(config: NamespaceConfig) -> None:
    for what, value, low, high in (
        ("default ttl", config.default_ttl_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX),
        ("maximum ttl", config.ttl_max_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX),
        ("session grace", config.session_grace_ms, 0, limits.SESSION_GRACE_MS_MAX),
        ("lock delay", config.lock_delay_ms, 0, limits.LOCK_DELAY_MS_MAX),
    ):
        if value not in (0, KEEP):
            _within_time(what, value, low, high)
    if type(config.claims_max) is not int or config.claims_max not in (0, KEEP):
        _within("bound on claims", config.claims_max, 1, limits.CLAIMS_MAX)
    if 0 < config.ttl_max_ms < KEEP and config.ttl_max_ms < config.default_ttl_ms < KEEP:
        raise BadRequest("the default ttl is longer than the maximum ttl")


def check_flag(name: str, flag: Any) -> None:
    """Raise if a switch is neither on nor off: "no" would count as on.

    Raises:
        BadRequest: it is neither True nor False.
    """
    if type(flag) is not bool:
        raise BadRequest(f"{name} is True or False, not {flag!r:.80}")


def check_holder(holder: str) -> None:
    """Raise if a holder's name is empty, too long or not printable.

    Raises:
        BadRequest: with the reason.
    """
    _check_text("a holder's name", holder, limits.HOLDER_BYTES_MAX)


def check_place(namespace: str, path: tuple[str, ...]) -> None:
    """Raise if there can be no such path in such a namespace.

    Raises:
        BadRequest: with the reason.
    """
    _check_namespace(namespace)
    check_path(path)


def check_path(path: tuple[str, ...]) -> None:
    """Raise if a path has a bad segment, or too many. The empty path is the whole namespace.

    Raises:
        BadRequest: with the reason.
    """
    if len(path) > limits.PATH_SEGMENTS_MAX:
        raise BadRequest(f"a path has at most {limits.PATH_SEGMENTS_MAX} segments, not {len(path)}")
    for segment in path:
        _check_text("a name", segment, limits.NAME_BYTES_MAX)
    if len(path) > 1 and (size := sum(len(segment.encode()) for segment in path)) > limits.PATH_BYTES_MAX:
        raise BadRequest(f"a path may have {limits.PATH_BYTES_MAX} bytes in UTF-8, not {size}")


def _check_page(namespace: str, after: int, limit: int) -> None:
    if namespace != "":
        _check_namespace(namespace)
    _check_number("claim", after)
    _within("page size", limit, 1, limits.LIST_PAGE_MAX)


def _check_number(what: str, number: Any) -> None:
    if type(number) is not int:
        raise BadRequest(f"the number of a {what} is a whole number, not {type(number).__name__}")
    if not 0 <= number <= INT_MAX:
        raise BadRequest(f"the number of a {what} is from 0 to {INT_MAX}, not {number}")


def _check_version(version: int) -> None:
    if version != ANY_VERSION:
        _check_number("version", version)


def _check_namespace(namespace: str) -> None:
    _check_text("a namespace", namespace, limits.NAMESPACE_BYTES_MAX)


def _check_data(data: Any) -> None:
    if not isinstance(data, bytes):
        raise BadRequest(f"data is bytes, not {type(data).__name__}")
    if len(data) > limits.DATA_BYTES_MAX:
        raise BadRequest(f"data of {len(data)} bytes is more than {limits.DATA_BYTES_MAX}")


def _check_text(what: str, text: Any, bytes_max: int) -> None:
    if not isinstance(text, str):
        raise BadRequest(f"{what} is text, not {type(text).__name__}")
    if not text:
        raise BadRequest(f"{what} must not be empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{what} must be valid Unicode text") from None
    if size > bytes_max:
        raise BadRequest(f"{what} may have {bytes_max} bytes in UTF-8, not {size}")
    if not text.isprintable():
        raise BadRequest(f"{what} must be printable: {text[:40]!r}")


def _within(what: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int:
        raise BadRequest(f"a {what} is a whole number, not {type(value).__name__}")
    if not low <= value <= high:
        raise BadRequest(f"a {what} is from {low} to {high}, not {value}")


def _within_time(what: str, value_ms: int, low_ms: int, high_ms: int) -> None:
    if not low_ms <= value_ms <= high_ms:
        raise BadRequest(f"a {what} is from {in_seconds(low_ms)} to {in_seconds(high_ms)}, not {in_seconds(value_ms)}")


def in_seconds(ms: int) -> str:
    """Return a length of time as people say it."""
    return f"{ms / 1000:.12g} s"
