"""Every statement that changes a job's state, one module per part of its life.

A function here takes the caller's session and never commits. A verb returns the moves it made;
no moves means that the job's state did not allow them: losing a race is an answer, not an error.

Two rules keep verbs from waiting on each other in a circle. Every verb locks the rows of ``jobs``
first, in the order of their ids, and only whoever holds that lock touches the job's rows elsewhere.
The leader, who moves many jobs in one transaction, skips what others have locked and finds it again
next turn. What is no verb, such as a heartbeat or the note that a message was sent, takes rows of
``active`` alone: without waiting, or in the same order.

Instants are the database's (``now()``), so that hosts need not agree on the time.
"""
