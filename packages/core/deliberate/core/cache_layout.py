"""What a cache file's header must say: which strings, which tensors, of which shapes.

    header --check_layout--> nothing, or one sentence that says what is wrong

`docs/cache-format.md` says the same in words.
"""

from deliberate.core.errors import CacheError
from deliberate.core.safetensors_header import FLOATS, NAMES, Header

FORMAT = "deliberate.cache"
VERSION = "1"

_TEXT_NAMES = {"token_ids", "position_ids", "last_hidden"}
_LATENT_NAMES = {"latents", "latents_last_hidden"}
_METADATA = (
    "format",
    "version",
    "base",
    "revision",
    "base_fingerprint",
    "coprocessor",
    "coprocessor_fingerprint",
    "dtype",
    "checksum",
)
_ODD_SHOWN = 5


def check_layout(header: Header, *, name: str) -> None:
    """Refuse a header that is not a cache file's.

    Args:
        header: Which is at one with itself and with the size of its file.
        name: The file's, for the message.

    Raises:
        CacheError: it is of something else, of another version, or does not fit together.
    """
    _check_metadata(header.metadata, name)
    _Shapes(header, name).check()


def layers_of(header: Header) -> int:
    """How many layers have keys."""
    return sum(part.endswith(".keys") for part in header.parts)


def _check_metadata(metadata: dict[str, str], name: str) -> None:
    if metadata.get("format") != FORMAT:
        raise CacheError(
            f"{name!r} is a safetensors file and not a cache file: "
            "make one of a text with `deliberate prefill --file PATH`"
        )
    version = metadata.get("version")
    if version != VERSION:
        raise CacheError(
            f"{name!r} has format version {version!r:.80} and this program reads "
            f"{VERSION!r}: make it again, or use the program that wrote it"
        )
    for key in _METADATA:
        if key not in metadata:
            raise CacheError(f"{name!r} lacks {key!r} in its header; make it again")


class _Shapes:
    """The tensors of a header, against one another."""

    def __init__(self, header: Header, name: str) -> None:
        self._parts, self._metadata, self._name = header.parts, header.metadata, name
        self._layers = range(layers_of(header))

    def check(self) -> None:
        """Refuse what does not fit together.

        Raises:
            CacheError: names what.
        """
        self._check_names()
        tokens, latents = self._size("token_ids", 1), 0
        hidden = self._size("last_hidden", 1)
        self._expect("token_ids", (tokens,))
        self._expect("last_hidden", (hidden,))
        if "latents" in self._parts:
            latents = self._size("latents", 2)
            self._expect("latents", (latents, hidden))
            self._expect("latents_last_hidden", (hidden,))
        self._expect("position_ids", (tokens + latents,))
        self._expect("layers.0.keys", self._parts["layers.0.keys"].shape)  # floats of some kind
        held = self._parts["layers.0.keys"].dtype
        for part in ("keys", "values"):
            heads = self._size(f"layers.0.{part}", 3)
            width = self._parts[f"layers.0.{part}"].shape[2]
            for layer in self._layers:
                self._expect(f"layers.{layer}.{part}", (heads, tokens + latents, width), held)
        if NAMES[held] != self._metadata["dtype"]:
            raise CacheError(
                f"{self._name!r} says that it holds {self._metadata['dtype']!r:.80} and holds "
                f"{NAMES[held]}; make it again"
            )

    def _check_names(self) -> None:
        names = set(self._parts)
        expected = _TEXT_NAMES | {
            f"layers.{i}.{part}" for i in self._layers for part in ("keys", "values")
        }
        if names & _LATENT_NAMES:
            expected |= _LATENT_NAMES
        if names != expected or not self._layers:
            odd = sorted(names ^ expected)[:_ODD_SHOWN] or ["layers"]
            shown = ", ".join(f"{each:.80}" for each in odd)
            raise CacheError(
                f"{self._name!r} has missing or unknown tensors: {shown}; make it again"
            )

    def _size(self, part: str, rank: int) -> int:
        shape = self._parts[part].shape
        if len(shape) != rank or 0 in shape:
            raise CacheError(
                f"{self._name!r}: {part} has shape {shape} and not {rank} non-empty axes; "
                "make it again"
            )
        return shape[0]

    def _expect(self, part: str, wanted: tuple[int, ...], stated: str = "") -> None:
        shape, dtype = self._parts[part].shape, self._parts[part].dtype
        kinds = ["I64"] if part.endswith("_ids") else [stated] if stated else [*FLOATS]
        if shape != wanted or dtype not in kinds:
            raise CacheError(
                f"{self._name!r}: {part} is {dtype} {shape} and should be "
                f"{' or '.join(kinds)} {wanted}; make it again"
            )
