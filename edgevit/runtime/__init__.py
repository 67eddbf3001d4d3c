"""What an application embeds: numpy, Pillow and one backend."""
