"""Tables: frames and arrays as the tensors of a flow."""

__all__: list[str] = []
