"""Make things converge: stores, informers, queues, workers, Events. Knows no kind."""
