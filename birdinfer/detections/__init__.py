"""Which species was present when: detections as tables, as pages to listen to, as summaries."""
