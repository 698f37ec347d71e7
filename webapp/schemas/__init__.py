"""What requests and answers look like, one module per subject.

They are checked when read, and written down in the OpenAPI document. Requests are strict: no
unknown fields, no text where a number belongs. ``groundwork`` is what the other modules build on.
"""
