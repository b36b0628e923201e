"""Measure: experiments become blocks of trials, one worker per device."""
