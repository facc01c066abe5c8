"""What this project costs and moves, measured; README.md has the answers."""
