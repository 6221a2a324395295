"""The device plugin API: registration, ListAndWatch, Allocate."""
