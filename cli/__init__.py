"""The `lessor` command."""
