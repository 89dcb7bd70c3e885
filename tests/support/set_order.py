"""Finds code whose outcome depends on the order of a set, which is chance under another name."""

import ast
from collections.abc import Iterable

from .tidy import Problem

SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet"})
MAP_TYPES = frozenset({"dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"})
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)

# Consumers whose answer does not depend on the order in which they see the elements ...
ORDERLESS = frozenset({"sorted", "min", "max", "any", "all", "sum", "len", "set", "frozenset", "bool"})
# ... but for these when a key lets elements tie: the set's order then decides who comes first.
TIES_BY_KEY = frozenset({"sorted", "min", "max"})
ORDERED = frozenset(
    "list tuple iter enumerate zip map filter dict deque OrderedDict chain from_iterable islice accumulate "
    "product reduce join extend fromkeys bytes bytearray str repr format".split()
)

Scope = dict[str, str]  # a name, and whether it is a "set" or a "map" of sets


def kind_of_annotation(node: ast.expr | None) -> str | None:
    """Say "set" or "map" (of sets) of an annotation, None of any other; a union that may be a set is one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return kind_of_annotation(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.BinOp):
        return kind_of_annotation(node.left) or kind_of_annotation(node.right)
    name, inner = (node.value, node.slice) if isinstance(node, ast.Subscript) else (node, None)
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
    if last in SET_TYPES:
        return "set"
    if last in ("Optional", "Final", "ClassVar"):
        return kind_of_annotation(inner)
    if last in MAP_TYPES and isinstance(inner, ast.Tuple) and kind_of_annotation(inner.elts[-1]) == "set":
        return "map"
    return None


def fields_of(sources: Iterable[str]) -> Scope:
    """Every field, function and constant that these modules declare as a set: read through any object, it is one."""
    fields: Scope = {}
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            declared: list[tuple[str, str | None]] = []
            if isinstance(node, ast.ClassDef):
                declared = [
                    (item.target.id, kind_of_annotation(item.annotation))
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                ]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                declared = [(node.target.attr, kind_of_annotation(node.annotation))]
            elif isinstance(node, ast.Assign) and is_plainly_a_set(node.value):
                declared = [(target.attr, "set") for target in node.targets if isinstance(target, ast.Attribute)]
                if node in tree.body:
                    declared = [(target.id, "set") for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.FunctionDef):  # a method or function is known by its name: calls of it are sets
                declared = [(node.name, kind_of_annotation(node.returns))]
            fields |= {name: kind for name, kind in declared if kind}
    return fields


def is_plainly_a_set(node: ast.expr) -> bool:
    calls_set = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    return calls_set or isinstance(node, ast.Set | ast.SetComp)


class SetOrder(ast.NodeVisitor):
    """Walks one module with the names in scope that are known to be sets, and notes where their order is used."""

    def __init__(self, path: str, fields: Scope) -> None:
        self.path = path
        self.fields = fields
        self.scopes: list[Scope] = [{}]
        self.problems: list[Problem] = []
        self.forgiven: set[ast.expr] = set()  # generators whose consumer does not care for order

    def kind(self, node: ast.expr | None) -> str | None:
        if node is not None and is_plainly_a_set(node):
            return "set"
        if isinstance(node, ast.Name):
            return next((scope[node.id] for scope in reversed(self.scopes) if node.id in scope), None)
        if isinstance(node, ast.Attribute):
            return self.fields.get(node.attr)
        if isinstance(node, ast.Subscript):
            return "set" if self.kind(node.value) == "map" else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, SET_OPERATORS):
            sides = (node.left, node.right)
            return "set" if any(self.kind(side) == "set" or is_view(side) for side in sides) else None
        if isinstance(node, ast.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ast.BoolOp):
            return next((kind for value in node.values if (kind := self.kind(value))), None)
        if isinstance(node, ast.NamedExpr):
            return self.kind(node.value)
        return self.kind_of_call(node) if isinstance(node, ast.Call) else None

    def kind_of_call(self, node: ast.Call) -> str | None:
        if isinstance(node.func, ast.Name):
            return self.fields.get(node.func.id)
        if isinstance(node.func, ast.Attribute):
            owner, method = self.kind(node.func.value), node.func.attr
            if owner == "set" and (method in SET_METHODS or method == "copy"):
                return "set"
            if owner == "map" and method in ("get", "pop", "setdefault"):
                return "set"
            return self.fields.get(method)
        return None

    def blame(self, node: ast.expr, what: str) -> None:
        self.problems.append(Problem(self.path, node.lineno, f"{what} ({ast.unparse(node)}); sort it first"))

    def learn(self, target: ast.expr, kind: str | None) -> None:
        if kind and isinstance(target, ast.Name):
            self.scopes[-1][target.id] = kind

    def learn_loop(self, target: ast.expr, source: ast.expr) -> None:
        """The values of a map of sets are sets, whether taken by values() or by items()."""
        if (
            isinstance(source, ast.Call)
            and isinstance(source.func, ast.Attribute)
            and self.kind(source.func.value) == "map"
        ):
            if source.func.attr == "values":
                self.learn(target, "set")
            elif source.func.attr == "items" and isinstance(target, ast.Tuple):
                self.learn(target.elts[-1], "set")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if node.level and (kind := self.fields.get(alias.name)):
                self.scopes[0][alias.asname or alias.name] = kind

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.scopes.append({item.arg: kind for item in arguments if (kind := kind_of_annotation(item.annotation))})
        self.generic_visit(node)
        self.scopes.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.learn(node.target, kind_of_annotation(node.annotation))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.learn(target, self.kind(node.value))
            if isinstance(target, ast.Tuple | ast.List) and self.kind(node.value) == "set":
                self.blame(node.value, "unpacks a set")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Add) and self.kind(node.value) == "set":
            self.blame(node.value, "appends a set")
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.learn(node.target, self.kind(node.value))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        if self.kind(node.iter) == "set":
            self.blame(node.iter, "iterates over a set")
        self.learn_loop(node.target, node.iter)
        self.generic_visit(node)

    def comprehend(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.scopes.append({})
        for part in node.generators:
            # What a set comprehension or an orderless consumer makes of a set is again without order.
            if self.kind(part.iter) == "set" and not isinstance(node, ast.SetComp) and node not in self.forgiven:
                self.blame(part.iter, "iterates over a set")
            self.learn_loop(part.target, part.iter)
        self.generic_visit(node)
        self.scopes.pop()

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self.comprehend(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.comprehend(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.comprehend(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.comprehend(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = (
            node.func.id
            if isinstance(node.func, ast.Name)
            else node.func.attr
            if isinstance(node.func, ast.Attribute)
            else ""
        )
        ties = name in TIES_BY_KEY and any(keyword.arg == "key" for keyword in node.keywords)
        if name in ORDERLESS and not ties:
            self.forgiven.update(item for item in node.args if isinstance(item, ast.GeneratorExp | ast.ListComp))
        for item in node.args:
            if self.kind(item) == "set" and (name in ORDERED or ties):
                self.blame(item, f"{name}() over a set" + (", whose ties a key leaves in its order" if ties else ""))
        if (
            name == "pop"
            and not node.args
            and isinstance(node.func, ast.Attribute)
            and self.kind(node.func.value) == "set"
        ):
            self.blame(node, "takes any element of a set")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load) and self.kind(node.value) == "set" and node not in self.forgiven:
            self.blame(node.value, "spreads a set")
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self.forgiven.update(item for item in node.elts if isinstance(item, ast.Starred))
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        if self.kind(node.value) == "set":
            self.blame(node.value, "yields from a set")
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        if self.kind(node.value) == "set":
            self.blame(node.value, "prints a set")
        self.generic_visit(node)


def is_view(node: ast.expr) -> bool:
    """The keys or items of a dict are in order by themselves; what set operators make of them is a plain set."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")


def set_order_problems(path: str, source: str, fields: Scope | None = None) -> list[Problem]:
    """Where this module lets the order of a set decide something; `fields` are the sets that other modules declare."""
    visitor = SetOrder(path, fields_of([source]) | (fields or {}))
    visitor.visit(ast.parse(source))
    return visitor.problems
