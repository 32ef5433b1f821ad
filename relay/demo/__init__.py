"""The demo: a real `relay run`, a simulated Microsoft 365, real mail from plain SMTP in to delivered out."""
