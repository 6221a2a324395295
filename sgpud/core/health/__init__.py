"""The health of a GPU: causes, XIDs, and the state machine."""
