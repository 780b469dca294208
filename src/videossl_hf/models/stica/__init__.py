"""STiCA: Space-Time Crop & Attend, and its cross-modal baseline GDT."""
