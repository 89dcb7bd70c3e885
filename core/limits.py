"""Every bound of the service, in one place, each with its reason (P10)."""

from typing import Final

# --- time ------------------------------------------------------------------------------------------------------------

CLOCK_RATE_DRIFT_PPM: Final = 500
"""How wrong the rate of one machine's monotonic clock may be. NTP itself slews at no more than 500 ppm; a crystal is
usually within 100. Two clocks that err in opposite directions differ by twice this, and that is what a client takes
off its deadlines. The values of clocks are never compared, so no bound on them is needed."""

HEARTBEAT_MS: Final = 100
"""A leader speaks at least this often: often enough that followers hear several before they lose patience."""

ELECTION_TIMEOUT_MIN_MS: Final = 700
"""Patience with a silent leader, at least. Seven heartbeats: a busy two-core machine delays a process by hundreds of
milliseconds without it being dead, and a killed process is noticed at once by its closed sockets anyway."""

ELECTION_TIMEOUT_SPREAD_MS: Final = 700
"""Random part of the patience, so that two followers rarely stand at the same moment."""

ELECTION_HINT_SPREAD_MS: Final = 30
"""Random wait after a leader's connection broke: several local round trips, so that one candidate is usually done
before the next one starts."""

ELECTION_RETRY_SPREAD_MS: Final = 150
"""Random wait after a candidacy that failed, again to part the candidates."""

ELECTION_FIRST_MIN_MS: Final = 200
"""Patience of a node that has just started: a running leader is heard within two heartbeats, and pre-vote guards it."""

ELECTION_FIRST_SPREAD_MS: Final = 300
"""Random part of that first patience."""

ELECTION_RESEND_MS: Final = 30
"""A candidate asks again those who have not answered: a peer's connection may come up only now."""

CANDIDACY_MS: Final = 600
"""How long a candidate tries with one ballot before it gives up. Longer than a round trip and two slow commits."""

LEADER_STALL_MS: Final = 400
"""A leader whose clock leaps by more than this between two looks was not running: it counts the leap as no time, since
the pings of its clients may lie unread in its sockets. Four heartbeats: less is ordinary scheduling noise."""

RETRANSMIT_MS: Final = 250
"""An Accept that is not chosen after this long is sent again; long enough not to double the load of a slow disk."""

FETCH_RETRY_MS: Final = 300
"""A catch-up request that brought nothing is repeated after this long."""

TTL_MS_MIN: Final = 100
"""Shortest lease. Below it the drift margin and one round trip are most of the lease."""

TTL_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""Longest lease: a week. A lease is kept by renewing; one that outlives its holder for longer is an outage."""

SESSION_TIMEOUT_MS_MIN: Final = 500
"""Shortest session timeout: two pings and an election on the hint must fit in."""

SESSION_TIMEOUT_MS_MAX: Final = 30 * 60 * 1000
"""Longest session timeout, 30 minutes, as in YDB's coordination service: a dead client must not hold for days."""

SESSION_TIMEOUT_MS_DEFAULT: Final = 10_000
"""Default session timeout: survives an election and a stall, and frees the locks of a dead client in ten seconds."""

WAIT_MS_MAX: Final = 24 * 3600 * 1000
"""Longest finite wait in a queue, one day, as in YDB's coordination service. Waiting without end is said as such."""

# --- names and data --------------------------------------------------------------------------------------------------

NAME_BYTES_MAX: Final = 1024
"""A resource name in UTF-8: room for any path-like name; it is written into every log entry that touches it."""

PATH_SEGMENTS_MAX: Final = 32
"""Segments of a path. Each claim is counted at every one of them, so this bounds what a claim costs."""

PATH_BYTES_MAX: Final = 4096
"""All segments of a path together, in UTF-8: as long as a file's path may be."""

CLAIM_PATHS_BYTES_MAX: Final = 8192
"""All paths of one claim together, in UTF-8: each event of the claim names them, and a node keeps many events."""

RESOURCES_PER_CLAIM_MAX: Final = 64
"""Resources that one claim asks for at once. Each of them is looked at whenever one of them may have become free."""

NAMESPACE_BYTES_MAX: Final = 255
"""A namespace in UTF-8."""

HOLDER_BYTES_MAX: Final = 255
"""A holder's name in UTF-8: host, process, thread and then some."""

DATA_BYTES_MAX: Final = 64 * 1024
"""Data kept with a claim. It is replicated, journalled and sent in snapshots; a lock service is no blob store."""

DETAIL_BYTES_MAX: Final = 1024
"""The reason that an answer gives, in words. One that names a long path is cut."""

DESCRIPTION_BYTES_MAX: Final = 1024
"""A session's description, as in YDB's coordination service."""

SESSION_KEY_BYTES: Final = 16
"""The random key by which a client opens and re-attaches its session: 128 bits cannot be guessed."""

# --- state -----------------------------------------------------------------------------------------------------------

SESSIONS_MAX: Final = 100_000
"""Sessions in the cluster: each costs about a kilobyte on every node."""

CLAIMS_MAX: Final = 1_000_000
"""Claims held and waiting in the cluster: each costs about a kilobyte on every node."""

SEMAPHORES_MAX: Final = 1_000_000
"""Semaphores that were created and not deleted, as many as in YDB's coordination service."""

SEMAPHORE_LIMIT_MAX: Final = 2**62
"""Units of a semaphore; the sum of two never leaves the range of the wire's numbers."""

PINS_MAX: Final = 100_000
"""Names that are pinned: an operator's means, for few names at a time."""

PINS_PER_NAME_MAX: Final = 100
"""Entities that pin one name."""

REGISTERS_MAX: Final = 1_000_000
"""Fenced registers, one for each name that uses one; they stay until they are erased."""

NAMESPACES_MAX: Final = 10_000
"""Namespaces that were created. One that is only used leaves nothing behind and is not counted."""

STATE_BYTES_MAX: Final = 512 * 1024 * 1024
"""Bytes of all records: past it nothing is added to the state (`core/room.py`). Half of what a snapshot may have, as
the other half is kept for what must not be refused: sessions, so that somebody can tidy up (100,000 with the longest
descriptions are 150 megabytes), the answers to what they do, and the reasons of leases that are broken."""

REPLIES_WHEN_FULL_MAX: Final = 16
"""Answers kept of one session while the state is full: 200 megabytes, if all sessions have so many short ones."""

LAPSED_MAX: Final = 1_000
"""Leases that ended by themselves or by an operator, and can still be read: enough to see what happened just now."""

LAPSED_KEPT_MS: Final = 60_000
"""How long such a lease can be read, unless its name is granted again before."""

LOCK_DELAY_MS_MAX: Final = 60_000
"""Longest time that a name stays closed after an unclean end, as in Consul."""

SESSION_GRACE_MS_MAX: Final = 60_000
"""Longest time that a change of leader adds to a session's life; YDB's coordination service allows 30 s."""

MAX_HOLD_MS_MAX: Final = 366 * 24 * 3600 * 1000
"""Longest bound on a hold that may be asked for: a year. No bound at all is said as such."""

TRANSACTION_ITEMS_MAX: Final = 64
"""Checks in one transaction, and steps: all are carried out between two other commands."""

DEADLOCK_LOOK_MAX: Final = 1_000
"""Claims looked at to find a circle. A longer circle is not found, and ends by the timeouts of those who wait in it."""

EVENTS_KEPT: Final = 10_000
"""Events that a node keeps in memory for watchers who come back: some minutes of a busy service. Half a kilobyte each
is usual; with the longest paths that there may be all of them are less than 100 megabytes."""

CIRCLE_LINKS_MAX: Final = 100
"""Links of a circle that an answer names: it is kept for retries, and nobody reads more of them."""

CIRCLE_BYTES_MAX: Final = 4096
"""Bytes of the names in these links, or of one link alone. A hundred of the longest paths would be half a megabyte."""

EVENT_PAGE_MAX: Final = 500
"""Events in one answer; more are asked for page by page."""

PING_FOLD_MS: Final = 50
"""How long a sign of life may wait at the gateway for others, so that many travel as one command. A ping comes with two
thirds of the session's timeout still to go, which is 333 ms at least."""

PINGS_FOLDED_MAX: Final = 4_000
"""Signs of life in one command: four numbers each, some thirty bytes, a hundred kilobytes and more."""

ATTACHES_MAX: Final = 2**22
"""How often a session may be attached anew: its requests are numbered from this times 2**40 on, below 2**63."""

REPLIES_PER_SESSION_MAX: Final = 4096
"""Answers kept for retries until the client acknowledges them. A client with more unacknowledged requests is told
Busy: it has lost its way, and its answers would fill every node's memory."""

REPLIES_BYTES_PER_SESSION_MAX: Final = 1024 * 1024
"""The same bound in bytes, twice what so many usual answers take: they are written with their session at each save. The
last one may go beyond it; none is larger than a circle."""

CLAIMS_PER_PING_MAX: Final = 100
"""Claims whose state one ping may ask for; a client with more asks in turns."""

WAITERS_COUNTED_MAX: Final = 1000
"""How many places in queues are counted for one request: a status says 1000 for everything beyond."""

LIST_LOOK_MAX: Final = 5_000
"""Claims looked at for one page, whether they belong on it or not: a few milliseconds of every other request's time."""

LIST_PAGE_MAX: Final = 500
"""Claims in one page of a listing; larger listings are asked for page by page."""

# --- consensus -------------------------------------------------------------------------------------------------------

NODES_MAX: Final = 9
"""Members of a cluster. More journals make every commit slower and add no safety that five do not give."""

WINDOW_SLOTS: Final = 2
"""Slots in flight. One hides no round trip, four only cut the batches up (measured for the design)."""

BATCH_COMMANDS_MAX: Final = 512
"""Commands in one slot: beyond it the commit is no longer what costs."""

BATCH_BYTES_MAX: Final = 512 * 1024
"""Bytes of commands in one slot, and so of one command, so that an Accept stays well within one packet."""

TRANSACTION_BYTES_MAX: Final = 256 * 1024
"""A transaction with all that it writes: half of what fits one slot. Only a transaction could be larger than that."""

PROPOSER_QUEUE_MAX: Final = 20_000
"""Commands waiting at the proposer. The gateway answers Busy before it, so reaching it is a broken invariant."""

JOURNAL_RETAIN_SLOTS: Final = 5_000
"""Chosen slots kept for followers that were away for a moment; older ones are served by a snapshot."""

JOURNAL_RETAIN_BYTES: Final = 16 * 1024 * 1024
"""The same bound in bytes, since the acceptor keeps these slots in memory too."""

PAGE_BYTES: Final = 256 * 1024
"""Size of one page of a promise or of catch-up, before the last value is added: below the packet limit by far."""

PAGE_SLOTS: Final = 1_000
"""Slots in one page of a promise or of catch-up."""

SNAPSHOT_CHUNK_BYTES: Final = 256 * 1024
"""Size of one piece of a snapshot."""

SNAPSHOT_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Largest snapshot that a node will assemble: a million claims of a kilobyte."""

SAVE_EVERY_MS: Final = 500
"""How often the learner writes its lease state down. The journal can replay what came since, so this only bounds the
work of a restart."""

SUMMARY_EVERY_MS: Final = 50
"""How often, at most, the learner tells the gateway how far it is, for `lessor status`: fresh to a person, cheap."""

SAVE_EVERY_SLOTS: Final = 2_000
"""The lease state is written down after this many slots even when time has not come."""

# --- gateway and sockets ---------------------------------------------------------------------------------------------

GATEWAY_IN_FLIGHT_MAX: Final = 10_000
"""Requests that a gateway has submitted and not yet answered. Past it every further request is answered Busy."""

GATEWAY_IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""The same bound in bytes of names and data."""

CONNECTIONS_TRACKED_MAX: Final = 100_000
"""Sessions whose connection a gateway remembers for pushes; the least recently heard is forgotten first."""

PACKET_BYTES_MAX: Final = 2 * 1024 * 1024
"""Largest packet that is decoded. A page of catch-up plus one whole batch is less than half of it."""

SOCKET_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest frame that ZeroMQ will take in at all; a larger one ends the connection before it is read into memory."""

UNSUSPECTED_BYTES_MAX: Final = 256 * 1024
"""What may come over a connection before anybody looks whether it is made of whole messages. ZeroMQ keeps the parts of
a message until its last has come; a part without content, two bytes, takes 64 there, so this is 8 megabytes."""

UNFINISHED_BYTES_MAX: Final = SOCKET_MESSAGE_BYTES_MAX + 1024 * 1024
"""What may come after that without a whole message having come: more than the largest that we take in, by more than
ZeroMQ reads at once. In parts without content it is 170 megabytes."""

FEED_READER_BYTES_MAX: Final = 2 * 1024 * 1024
"""What a reader of the feed may send in all: two thousand subscriptions to the longest names, some ten thousand to
usual ones. Each letter of a name that is subscribed to costs some tens of bytes. The connection of one that sends more
is ended; whoever only pulses every second has it renewed in two days."""

PULSE_BYTES_S: Final = 32
"""Bytes a second that are no sign of evil: a pulse of ZeroMQ's, which is no message, has nine, and comes every second.
A connection over which nothing else comes is renewed in a week, and nobody complains of it."""

PACKET_MESSAGES_MAX: Final = 4096
"""Messages in one packet."""

PACKET_FRAMES_MAX: Final = 4
"""Frames in one multipart message; we send two at the most."""

BALLOT_COUNTER_MAX: Final = 2**48
"""Largest counter of a ballot that is believed: an election in every millisecond would take 8,900 years to reach it,
and one close to the largest number there is would leave no higher one to anybody."""

SLOTS_AHEAD_MAX: Final = 1_000_000
"""A vote further ahead than this of what a node has applied is dropped, which is always safe: the node has a snapshot
to fetch first, and whoever asks for all that it accepted must not be shown a hole of millions of slots."""

SLOTS_COUNTED_AHEAD_MAX: Final = 20_000
"""Votes for slots further ahead than this are not counted by a learner: the window of a leader is far smaller."""

RECEIVE_BURST: Final = 256
"""Packets taken from one socket before the others get their turn."""

SOCKET_QUEUE_MESSAGES: Final = 200
"""ZeroMQ's own queue of packets to one connection: past it they are dropped (they are all repeatable). What one packet
holds is all that one look at the sockets brought, so that whoever reads never has so many waiting. Whoever asks and
does not read costs no more than this many: some megabytes of usual answers, and 400 megabytes (`PACKET_BYTES_MAX` each)
if he asks for whole pages of the largest data, many at a time, on each connection that he opens."""

FEED_QUEUE_EVENTS: Final = 10_000
"""Events that wait for one reader of the feed: seconds of a busy service, at some hundred bytes each. A reader that is
further behind misses some, and sees it by the revisions."""

SOCKET_QUEUE_MESSAGES_IN: Final = 256
"""ZeroMQ's own queue of packets from one connection: past it, TCP holds the sender back, and nothing is lost."""

CBOR_DEPTH_MAX: Final = 12
"""Nesting that the decoder follows; our deepest message has less."""

PORTS_PER_NODE: Final = 5
"""A node's ports, counted from its base: clients, proposer, acceptor, learner, event feed."""

# --- fencing ---------------------------------------------------------------------------------------------------------

FENCED_NAMES_MAX: Final = 100_000
"""Names whose newest token a gate in memory keeps, some tens of megabytes. It may forget none to make room for another:
an old token of the forgotten name would pass."""

FENCE_WAIT_MS: Final = 10_000
"""How long a guard of files waits for its lock. The lock is held for a look and a few syncs, so whoever holds it longer
stands still or has a disk that does."""
