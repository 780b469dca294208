"""placeholder"""
class SavesItsCode:
    """Mixin."""
