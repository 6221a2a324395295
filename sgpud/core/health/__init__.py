"""How a GPU does: causes, XIDs, and the machine that remembers them."""
