"""Publishes a task per recipient, in batches, and prints when it began (CLOCK_REALTIME, ns)."""

import sys
import time

from bench.celery_app import app, send_one

BATCH = 500


def main(number: int) -> None:
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        begun = time.time_ns()
        with producer.batch(BATCH):
            for reader in range(number):
                send_one.apply_async((f"reader-{reader}@d{reader % 20}.example",), producer=producer)
    print(begun)


if __name__ == "__main__":
    main(int(sys.argv[1]))
