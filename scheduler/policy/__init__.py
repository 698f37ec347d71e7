"""Who goes next. Pure: values in, a plan out; no clock, database, broker or log."""
