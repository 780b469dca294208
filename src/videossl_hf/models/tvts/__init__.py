"""TVTS: turning to video for transcript sorting, and TVTSv2."""
