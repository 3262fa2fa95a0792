"""The loop that makes the student better: exam, sitting, grade, curriculum, fine-tune, gate, rollout."""
