-- Who makes works: creators with their profile sections, verification, followers, and what is counted of them.

CREATE SCHEMA taxonomy;

-- Reference lists. Codes are stable; names are for people.
CREATE TABLE taxonomy.category (
    code     text PRIMARY KEY CHECK (code ~ '^[a-z0-9_]{2,50}$'),
    name     text NOT NULL,
    position smallint NOT NULL UNIQUE
);
CREATE TABLE taxonomy.genre (
    code     text PRIMARY KEY CHECK (code ~ '^[a-z0-9_]{2,50}$'),
    name     text NOT NULL,
    position smallint NOT NULL UNIQUE
);
INSERT INTO taxonomy.category (position, code, name) VALUES
    (1, 'literature', 'Literature'), (2, 'film', 'Film and series'), (3, 'music', 'Music'), (4, 'art', 'Visual art'),
    (5, 'comics', 'Comics'), (6, 'games', 'Games'), (7, 'education', 'Education'), (8, 'science', 'Science'),
    (9, 'business', 'Business'), (10, 'technology', 'Technology'), (11, 'design', 'Design'),
    (12, 'photography', 'Photography'), (13, 'podcasts', 'Podcasts and audio'), (14, 'lifestyle', 'Lifestyle'),
    (15, 'sports', 'Sports'), (16, 'characters', 'Characters and brands'), (17, 'other', 'Other');
INSERT INTO taxonomy.genre (position, code, name) VALUES
    (1, 'action', 'Action'), (2, 'adventure', 'Adventure'), (3, 'animation', 'Animation'), (4, 'biography', 'Biography'),
    (5, 'children', 'Children'), (6, 'comedy', 'Comedy'), (7, 'crime', 'Crime'), (8, 'documentary', 'Documentary'),
    (9, 'drama', 'Drama'), (10, 'family', 'Family'), (11, 'fantasy', 'Fantasy'), (12, 'historical', 'Historical'),
    (13, 'horror', 'Horror'), (14, 'literary', 'Literary fiction'), (15, 'musical', 'Musical'),
    (16, 'mystery', 'Mystery'), (17, 'poetry', 'Poetry'), (18, 'romance', 'Romance'),
    (19, 'science_fiction', 'Science fiction'), (20, 'thriller', 'Thriller'), (21, 'war', 'War'),
    (22, 'western', 'Western'), (23, 'young_adult', 'Young adult');

CREATE SCHEMA creators;

CREATE TABLE creators.creator (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL UNIQUE REFERENCES identity.account,
    display_name        text NOT NULL CHECK (length(display_name) BETWEEN 1 AND 100),
    bio                 text NOT NULL DEFAULT '',
    avatar_url          text NOT NULL DEFAULT '',
    cover_url           text NOT NULL DEFAULT '',
    creator_type        text NOT NULL CHECK (creator_type IN ('individual', 'institution', 'enterprise')),
    category            text REFERENCES taxonomy.category,
    verification_status text NOT NULL DEFAULT 'unsubmitted' CHECK (
        verification_status IN ('unsubmitted', 'pending', 'verified', 'rejected')),
    version             bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    search              tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('simple', display_name), 'A') || setweight(to_tsvector('simple', bio), 'C')) STORED
);
CREATE INDEX creator_category ON creators.creator (category, id DESC);
CREATE INDEX creator_type ON creators.creator (creator_type, id DESC);
CREATE INDEX creator_verified ON creators.creator (id DESC) WHERE verification_status = 'verified';
CREATE INDEX creator_name ON creators.creator (lower(display_name), id);
CREATE INDEX creator_search ON creators.creator USING gin (search);

-- One document for each section, replaced as a whole; its shape is checked before it comes here.
CREATE TABLE creators.profile_section (
    creator_id uuid NOT NULL REFERENCES creators.creator,
    section    text NOT NULL CHECK (section IN ('skills', 'achievements', 'experiences', 'education', 'sections')),
    items      jsonb NOT NULL CHECK (jsonb_typeof(items) = 'array'),
    version    bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (creator_id, section)
);

CREATE TABLE creators.verification_case (
    id            uuid PRIMARY KEY,
    creator_id    uuid NOT NULL REFERENCES creators.creator,
    statement     text NOT NULL,
    file_ids      uuid[] NOT NULL,
    portfolio_ids uuid[] NOT NULL,
    status        text NOT NULL CHECK (status IN ('pending', 'verified', 'rejected')),
    submitted_at  timestamptz NOT NULL DEFAULT now(),
    decided_at    timestamptz,
    decided_by    uuid REFERENCES identity.account,  -- null: a rule of the platform
    reason        text NOT NULL DEFAULT '',
    CHECK ((status = 'pending') = (decided_at IS NULL))
);
CREATE UNIQUE INDEX verification_case_open ON creators.verification_case (creator_id) WHERE status = 'pending';
CREATE INDEX verification_case_creator ON creators.verification_case (creator_id, id DESC);
CREATE INDEX verification_case_status ON creators.verification_case (status, id);

CREATE TABLE creators.follow (
    creator_id  uuid NOT NULL REFERENCES creators.creator,
    account_id  uuid NOT NULL REFERENCES identity.account,
    followed_at timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,  -- kept, so that who comes back is not counted as somebody new
    PRIMARY KEY (creator_id, account_id)
);
CREATE INDEX follow_account ON creators.follow (account_id, followed_at DESC, creator_id DESC) WHERE ended_at IS NULL;

-- Projections: only consumers of events write here, each event once.
--
-- `trend` is log2 of a sum of weights that double every half-life towards the future (forward decay), in millionths:
-- the order of two creators never changes by time alone, so an index keeps it.
CREATE TABLE creators.tally (
    creator_id     uuid PRIMARY KEY REFERENCES creators.creator,
    follower_count bigint NOT NULL DEFAULT 0 CHECK (follower_count >= 0),
    work_count     bigint NOT NULL DEFAULT 0 CHECK (work_count >= 0),
    trend          bigint NOT NULL DEFAULT 0
);
CREATE INDEX tally_followers ON creators.tally (follower_count DESC, creator_id DESC);
CREATE INDEX tally_trend ON creators.tally (trend DESC, creator_id DESC);

CREATE TABLE creators.daily (
    creator_id         uuid NOT NULL REFERENCES creators.creator,
    day                date NOT NULL,
    followers_gained   bigint NOT NULL DEFAULT 0,
    followers_lost     bigint NOT NULL DEFAULT 0,
    works_published    bigint NOT NULL DEFAULT 0,
    chapters_published bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (creator_id, day)
);

CREATE TABLE creators.activity (
    id           uuid PRIMARY KEY,  -- of the event, so in the order of time
    creator_id   uuid NOT NULL REFERENCES creators.creator,
    type         text NOT NULL,
    subject_type text NOT NULL,
    subject_id   uuid NOT NULL,
    title        text NOT NULL,
    occurred_at  timestamptz NOT NULL
);
CREATE INDEX activity_creator ON creators.activity (creator_id, id DESC);
CREATE INDEX activity_subject ON creators.activity (subject_id);
