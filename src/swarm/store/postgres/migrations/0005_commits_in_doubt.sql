-- Works with Swarms that know version 3
-- What each writing connection has committed last. Room in the page: each commit changes its row.
CREATE TABLE writer_marks (
    writer TEXT COLLATE "C" PRIMARY KEY,
    mark BIGINT NOT NULL,
    marked_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 20);
