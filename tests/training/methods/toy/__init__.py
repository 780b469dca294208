"""A tiny method that lies outside the package: training may know of a method only what this one shows."""
