"""What the machine does while it is measured: clocks, heat, what holds it down, and the energy that it takes."""
