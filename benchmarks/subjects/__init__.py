"""What is measured: this relay by plane, its peers, the loop in C, and no relay at all."""
