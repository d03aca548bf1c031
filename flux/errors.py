"""Every error Flux raises on purpose.

    FluxError
    ├── DefinitionError            a task, a workflow or a call of one is written wrong
    │   ├── DuplicateWorkflow      two workflows have one name
    │   ├── NotInWorkflow          a task or a pause was called where no workflow runs
    │   ├── InvalidGraph           a graph that cannot run (also a ValueError)
    │   └── DiscoveryError         a path or module that holds no workflows
    ├── InvalidInput               a value from outside does not fit the declared type
    │   └── InvalidAnswer          ... the answer to a pause
    ├── NotStorable                a value cannot be written down exactly
    ├── NotReadable                a stored value cannot be read back: its class is gone or has changed
    ├── ExecutionError             what can go wrong with an execution
    │   ├── ExecutionNotFound
    │   ├── WorkflowNotFound       the execution's workflow is not served here
    │   ├── WorkflowMismatch       the execution belongs to another workflow
    │   ├── NotPaused              an answer for an execution that has asked nothing
    │   ├── NotFailed              a retry of an execution that has not failed
    │   ├── PauseNotFound          an answer for a question that is not open, or that does not say for which
    │   ├── ExecutionFinished      a verb that needs a live execution
    │   ├── ExecutionBusy          another process holds the execution
    │   │   └── QueueFull          ... or nobody yet: it waits for its turn
    │   └── ExecutionFailure       raised for a child that failed or was cancelled
    ├── NonRetryable               a failure that trying again cannot help; users raise it, or derive from it
    │   ├── ApprovalRejected       a person said no to a task that asks first
    │   ├── SecretNotFound         a secret that a task asks for is nowhere
    │   ├── ConfigNotFound         a configuration value that a task asks for is nowhere
    │   ├── KeyUnusable            the key that secrets and sensitive values are encrypted with cannot be had, or is another
    │   ├── ModelNotReady          a model cannot be asked: an extra, a key or its provider is missing
    │   ├── ModelRefused           a model's provider refuses the request
    │   └── BudgetExceeded         an agent has used up its budget
    ├── ModelError                 a model's provider failed or could not be reached
    ├── OutputInvalid              a model's answer does not have the form that was asked for
    ├── SkillError                 a skill is written wrong, or there is none of that name
    ├── RemoteError                what can go wrong with another MCP server; those marked * may be tried again
    │   ├── ServerUnreachable *    nothing was sent: there is no server, or it does not take calls now
    │   ├── ConnectionLost *       the connection ended, or no answer came in time; the call may be made twice without harm
    │   ├── OutcomeUnknown         the same, and it may not: somebody has to find out (also a NonRetryable)
    │   ├── RequestRefused         the server answered with an error of the protocol: no such tool, arguments that do not fit
    │   │   └── NotAuthorized      ... it wants other credentials
    │   ├── ToolExecutionError     the tool answered that it failed
    │   ├── ToolChanged            the tool is not there any more, or is not the one that was discovered
    │   ├── ResultTooLarge         the tool answered more than is kept
    │   └── UnusableResult         the server answered what it may not
    ├── TooManyFailures            fewer branches succeeded than were asked for
    ├── BranchCancelled            stands for a branch that was not needed any more
    ├── TaskFailed                 a task's exception whose own class cannot be made again
    ├── TaskTimeout                a task ran out of its time (also a TimeoutError)
    ├── WorkflowTimeout            an execution did (also a TimeoutError)
    ├── DeadEnd                    the conditions of a graph led to no end
    ├── NonDeterminismError        the code no longer makes the calls its history holds
    ├── RecoveryLimit              an execution took its process down too often
    └── StoreError                 the database refuses
        ├── StreamMoved            somebody wrote first
        ├── ExecutionExists        the id is taken
        ├── AlreadyQueued          its queue holds a living execution that stands for the same
        ├── KeyTaken               an execution that was begun lately has the key
        ├── LeaseLost              the run belongs to another process now
        └── SchemaTooNew           the file was written by a newer Flux

`Suspend` is no error and no part of the family: see its docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flux.domain.calls import Failure


class FluxError(Exception):
    """The root: `except FluxError` catches all of ours."""


class DefinitionError(FluxError):
    pass


class DuplicateWorkflow(DefinitionError):
    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(
            f"Two workflows are named {name!r}: {first} and {second}. "
            "Rename one, or give it `@workflow.with_options(name=...)`."
        )
        self.name = name


class NotInWorkflow(DefinitionError):
    pass


class InvalidGraph(DefinitionError, ValueError):
    pass


class DiscoveryError(DefinitionError):
    pass


class InvalidInput(FluxError):
    """`faults` is a list of (path, message); the path is dotted, empty for the value itself."""

    def __init__(self, what: str, faults: Sequence[tuple[str, str]]) -> None:
        lines = "".join(f"\n  {path or 'value'}: {message}" for path, message in faults)
        super().__init__(f"{what} does not fit:{lines}")
        self.what = what
        self.faults = list(faults)


class InvalidAnswer(InvalidInput):
    pass


class NotStorable(FluxError):
    """`path` says where inside the value; `owner` which task, workflow or pause it belongs to."""

    def __init__(self, owner: str, path: str, type_name: str, reason: str) -> None:
        where = f" at {path}" if path else ""
        super().__init__(f"{owner}: cannot store {type_name}{where}: {reason}")
        self.owner = owner
        self.path = path
        self.type_name = type_name


class NotReadable(FluxError):
    pass


class ExecutionError(FluxError):
    pass


class ExecutionNotFound(ExecutionError):
    def __init__(self, id: str) -> None:
        super().__init__(f"No execution {id!r}.")
        self.id = id


class WorkflowNotFound(ExecutionError):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"No workflow {name!r} here; known: {listed}.")
        self.name = name


class WorkflowMismatch(ExecutionError):
    def __init__(self, id: str, *, belongs_to: str, asked: str) -> None:
        super().__init__(f"Execution {id!r} belongs to workflow {belongs_to!r}, not to {asked!r}.")
        self.id = id


class NotPaused(ExecutionError):
    def __init__(self, id: str, status: str) -> None:
        super().__init__(f"Execution {id!r} is {status} and waits for no answer.")
        self.id = id


class NotFailed(ExecutionError):
    def __init__(self, id: str, status: str) -> None:
        super().__init__(
            f"Execution {id!r} is {status}; only a failed one can be retried. To go on from elsewhere, fork it."
        )
        self.id = id


class PauseNotFound(ExecutionError):
    def __init__(self, id: str, pause: str | None, open_pauses: Sequence[str]) -> None:
        listed = ", ".join(open_pauses) or "none"
        said = f"has no open pause {pause!r}" if pause else "waits for answers: say which pause the answer is for"
        super().__init__(f"Execution {id!r} {said}. Open now: {listed}.")
        self.id = id


class ExecutionFinished(ExecutionError):
    def __init__(self, id: str, status: str) -> None:
        super().__init__(f"Execution {id!r} is already {status}.")
        self.id = id


class ExecutionBusy(ExecutionError):
    def __init__(self, id: str, holder: str) -> None:
        super().__init__(f"Execution {id!r} is being run by {holder}.")
        self.id = id
        self.holder = holder


class QueueFull(ExecutionBusy):
    def __init__(self, id: str, queue: str) -> None:
        super().__init__(id, f"nobody yet: it waits for its turn in queue {queue!r}")


class ExecutionFailure(ExecutionError):
    pass


class NonRetryable(FluxError):
    """`raise NonRetryable("the card was declined")`, or derive your own errors from it: no retry follows."""


class ApprovalRejected(NonRetryable):
    def __init__(self, task: str, reason: str = "") -> None:
        super().__init__(task, reason)
        self.task = task
        self.reason = reason

    def __str__(self) -> str:
        return f"Task {self.task!r} was not approved" + (f": {self.reason}" if self.reason else ".")


class SecretNotFound(NonRetryable):
    def __init__(self, name: str, asker: str) -> None:
        super().__init__(name, asker)
        self.name = name
        self.asker = asker

    def __str__(self) -> str:
        return (
            f"{self.asker} asks for the secret {self.name!r}, which is not set. Set the environment variable "
            f"FLUX_SECRET_{self.name} (or {self.name}), or store it with `flux secrets set {self.name}`."
        )


class ConfigNotFound(NonRetryable):
    def __init__(self, name: str, asker: str) -> None:
        super().__init__(name, asker)
        self.name = name
        self.asker = asker

    def __str__(self) -> str:
        return (
            f"{self.asker} asks for the configuration value {self.name!r}, which is not set. Set it in the TOML file that "
            f"the environment variable FLUX_CONFIG names, or as a variable FLUX_CONFIG_<NAME>."
        )


class KeyUnusable(NonRetryable):
    pass


class ModelNotReady(NonRetryable):
    pass


class ModelRefused(NonRetryable):
    pass


class BudgetExceeded(NonRetryable):
    """`limit` names what was used up, by the name of the parameter of `Budget`."""

    def __init__(self, budget: str, limit: str, spent: float, maximum: float) -> None:
        super().__init__(budget, limit, spent, maximum)
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.maximum = maximum

    def __str__(self) -> str:
        return f"The budget {self.budget!r} is used up: {self.limit}={self.maximum:g}, spent {self.spent:g}."


class ModelError(FluxError):
    pass


class OutputInvalid(FluxError):
    pass


class SkillError(FluxError):
    pass


class RemoteError(FluxError):
    """`server` is the name that `mcp()` has for it, `reason` what went wrong."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(server, reason)
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        return f"MCP server {self.server!r}: {self.reason}"


class ServerUnreachable(RemoteError):
    pass


class ConnectionLost(RemoteError):
    pass


class OutcomeUnknown(RemoteError, NonRetryable):
    """A call was sent and its answer never came. Nothing here can tell whether it was carried out."""

    def __init__(self, server: str, tool: str, reason: str) -> None:
        FluxError.__init__(self, server, tool, reason)
        self.server = server
        self.tool = tool
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"MCP server {self.server!r}: it is not known whether {self.tool!r} was carried out: {self.reason}. Look at what "
            "the tool changes. If it was not done, or if twice does no harm, retry the execution: the call is then made "
            "again, with the same idempotency key. If it was done, catch this error and go on. A tool that may always be "
            "called twice can say so: `.with_options(idempotent=True)`."
        )


class RequestRefused(RemoteError):
    """`code` is the number of the JSON-RPC error."""

    def __init__(self, server: str, reason: str, code: int = 0) -> None:
        FluxError.__init__(self, server, reason, code)
        self.server = server
        self.reason = reason
        self.code = code


class NotAuthorized(RequestRefused):
    pass


class ToolExecutionError(RemoteError):
    """`message` is the text of the tool's answer."""

    def __init__(self, tool_name: str, message: str, server: str = "") -> None:
        FluxError.__init__(self, tool_name, message, server)
        self.tool_name = tool_name
        self.message = message
        self.server = server
        self.reason = message

    def __str__(self) -> str:
        return f"Tool {self.tool_name!r} failed: {self.message}"


class ToolChanged(RemoteError):
    pass


class ResultTooLarge(RemoteError):
    pass


class UnusableResult(RemoteError):
    pass


class TooManyFailures(FluxError):
    """`failures` are the branches' exceptions, in the order of the branches."""

    def __init__(self, successes: int, failures: Sequence[Exception]) -> None:
        first = f", the first: {type(failures[0]).__name__}: {failures[0]}" if failures else ""
        super().__init__(f"{len(failures)} branches failed and {successes} succeeded{first}.")
        self.successes = successes
        self.failures = list(failures)


class BranchCancelled(FluxError):
    def __init__(self, index: int) -> None:
        super().__init__(f"Branch {index} was cancelled: it was not needed any more.")
        self.index = index


class TaskFailed(FluxError):
    """Stands in for an exception that cannot be made again from what was recorded. `failure` has all that is known."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.type}: {failure.message}")
        self.failure = failure


class TaskTimeout(FluxError, TimeoutError):
    def __init__(self, task: str, seconds: float) -> None:
        super().__init__(task, seconds)
        self.task = task
        self.seconds = seconds

    def __str__(self) -> str:
        return f"Task {self.task!r} took longer than its timeout of {self.seconds:g} s."


class DeadEnd(FluxError):
    """`nodes` are those after which nothing ran, `edges` the ones that leave them, whose conditions were false."""

    def __init__(self, graph: str, nodes: Sequence[str], edges: Sequence[str]) -> None:
        super().__init__(graph, nodes, edges)
        self.graph = graph
        self.nodes = nodes
        self.edges = edges

    def __str__(self) -> str:
        stopped, false = ", ".join(map(repr, self.nodes)), "; ".join(self.edges)
        return f"Graph {self.graph!r} reached no end: it stopped after {stopped}. Not true: {false}."


class WorkflowTimeout(FluxError, TimeoutError):
    def __init__(self, workflow: str, seconds: float) -> None:
        super().__init__(workflow, seconds)
        self.workflow = workflow
        self.seconds = seconds

    def __str__(self) -> str:
        return f"Workflow {self.workflow!r} took longer than its timeout of {self.seconds:g} s."


class NonDeterminismError(FluxError):
    """The workflow's code made another call than its history holds at this place."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RecoveryLimit(FluxError):
    pass


class StoreError(FluxError):
    pass


class StreamMoved(StoreError):
    """The stream holds more facts than the writer had seen: read again, then decide again."""

    def __init__(self, id: str, expected: int) -> None:
        super().__init__(f"Execution {id!r} has moved on past fact {expected}.")
        self.id = id
        self.expected = expected


class ExecutionExists(StoreError):
    def __init__(self, id: str) -> None:
        super().__init__(f"There is an execution {id!r} already.")
        self.id = id


class AlreadyQueued(StoreError):
    """`id` is the execution that stands in the queue."""

    def __init__(self, id: str, queue: str) -> None:
        super().__init__(f"Execution {id!r} stands for the same in queue {queue!r} already.")
        self.id = id


class KeyTaken(StoreError):
    """`id` is the newest execution with the key."""

    def __init__(self, id: str) -> None:
        super().__init__(f"Execution {id!r} has been begun with this key already.")
        self.id = id


class LeaseLost(StoreError):
    def __init__(self, id: str) -> None:
        super().__init__(f"This process no longer holds execution {id!r}.")
        self.id = id


class SchemaTooNew(StoreError):
    def __init__(self, database: str, found: int, known: int) -> None:
        super().__init__(
            f"{database} was written by a newer Flux (schema {found}, this one knows {known}). Upgrade Flux, or use "
            "another --database."
        )


class Suspend(BaseException):
    """Unwinds a workflow's body when the execution parks. It derives from BaseException so that `except Exception`
    never meets it. A body that catches it all the same (bare `except:`) must raise it again."""
