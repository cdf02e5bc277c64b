"""The distributions of the library that resemble data; ``load`` reads them by name."""
