"""What Celery is told, with the reason for each setting; for workers and whoever sends to them."""

from kombu import Exchange, Queue

from scheduler.settings import Settings
from scheduler.states import JobClass

_DAY_SECONDS = 86_400
_SILENCE_SECONDS = 5

# The wire.
broker_url = Settings.from_env().redis_url  # the one Redis of the installation
broker_connection_retry_on_startup = True  # a worker may be started before its broker
broker_connection_max_retries = None  # a broker that is away comes back; do not give up on it
broker_transport_options = {
    "queue_order_strategy": "priority",  # always the most urgent list first, not in turns
    "priority_steps": [0],  # one list per class: the order inside a class is the scheduler's
    "visibility_timeout": _DAY_SECONDS,  # a shorter one runs long jobs twice; leases recover sooner
    "unacked_restore_interval": 10,  # look for messages of dead workers this often (seconds) ...
    "unacked_restore_throttle": 1,  # ... and every time, not every tenth
    "socket_keepalive": True,  # notice a broker that went away without a word
    # And one whose connections died without a word: left alone, a worker waits for an answer for
    # ever, and for messages for most of a minute.
    "socket_timeout": _SILENCE_SECONDS,
    "health_check_interval": _SILENCE_SECONDS,
}
task_queues = tuple(  # in the order they are served
    Queue(name, Exchange(name), routing_key=name) for name in map(str, JobClass)
)
task_default_queue = str(JobClass.NORMAL)  # Celery wants one; dispatch always names the queue
task_create_missing_queues = False  # a misspelt queue is an error, not a list nobody reads
task_serializer = "json"  # messages hold ids only
accept_content = ["json"]  # nothing on the wire can name code to run

# What a message may cause.
task_acks_late = True  # with early acks the order over the four lists is lost
task_reject_on_worker_lost = False  # with True a job that kills its process starts again for ever
task_acks_on_failure = True  # outcomes are in Postgres; a message is never a reason to try again
task_acks_on_timeout = True  # likewise
task_ignore_result = True  # results are in Postgres, and there is no result backend

# The worker.
worker_pool = "tasks.pool:TaskPool"  # prefork that replaces a lost process within half a second
worker_consumer = "tasks.consumer:Consumer"  # a connection that cannot be closed does not end it
worker_prefetch_multiplier = 1  # a larger one breaks the order over the four lists
worker_disable_prefetch = True  # a message held back by one worker is not run by another
worker_cancel_long_running_tasks_on_connection_loss = False  # jobs go on while the broker is away
