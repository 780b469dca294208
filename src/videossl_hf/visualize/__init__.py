"""Pictures of what a method sees and of what it learnt."""
