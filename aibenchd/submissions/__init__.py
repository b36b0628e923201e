"""Programs that people build at their desks and send: kept by digest, and measured as those of commits are."""
