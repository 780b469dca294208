"""A method of ten lines, which lies outside the package: what the training code may know of a method is what it shows."""
