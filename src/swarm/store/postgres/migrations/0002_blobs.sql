CREATE TABLE blobs (
    location TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    place TEXT COLLATE "C" NOT NULL,
    head BYTEA NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('begun', 'present', 'doomed')),
    touched_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE UNIQUE INDEX idx_blobs_present ON blobs(kind, key) WHERE state = 'present';
CREATE INDEX idx_blobs_unsettled ON blobs(state, touched_at) WHERE state <> 'present';

CREATE TABLE blob_chunks (
    location TEXT COLLATE "C" NOT NULL,
    number INTEGER NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (location, number)
);

CREATE TABLE blob_collections (
    id INTEGER PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    ended_at TIMESTAMPTZ NOT NULL
);

ALTER TABLE blob_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
