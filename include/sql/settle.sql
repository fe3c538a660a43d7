WITH given AS (
    SELECT sightings.text_hash, sightings.label, sightings.seen_at, sightings.trust, sightings.copies,
        sightings.text, sightings.source, sightings.text_hash {{ bytewise }} AS sorted_hash
        {% if votes %}, COUNT(*) OVER (PARTITION BY sightings.text_hash {{ bytewise }}, sightings.label) AS votes{% endif %}
    FROM example_sightings AS sightings
    WHERE sightings.text_hash IN (SELECT text_hash FROM {{ curated }})
),
ranked AS (
    SELECT given.*,
        ROW_NUMBER() OVER (
            PARTITION BY sorted_hash
            ORDER BY {{ order }}, copies DESC, label, seen_at, source
        ) AS place,
        MIN(seen_at) OVER (PARTITION BY sorted_hash) AS first_seen,
        MAX(seen_at) OVER (PARTITION BY sorted_hash) AS last_seen,
        MIN(label) OVER (PARTITION BY sorted_hash) AS first_label,
        MAX(label) OVER (PARTITION BY sorted_hash) AS last_label
    FROM given
)
SELECT
    ranked.text_hash,
    ranked.text,
    ranked.label,
    ranked.source,
    ranked.first_seen,
    ranked.last_seen,
    CASE
        WHEN known.text_hash IS NULL THEN 1
        WHEN known.label <> ranked.label THEN known.label_version + 1
        ELSE known.label_version
    END AS label_version,
    CASE
        WHEN known.text_hash IS NULL THEN 'new'
        WHEN known.label <> ranked.label THEN 'changed'
        ELSE 'known'
    END AS kind,
    CASE WHEN ranked.first_label <> ranked.last_label THEN 1 ELSE 0 END AS contradicted,
    CASE
        WHEN known.text = ranked.text AND known.label = ranked.label AND known.source = ranked.source
            AND known.first_seen = ranked.first_seen AND known.last_seen = ranked.last_seen THEN 1
        ELSE 0
    END AS unchanged
FROM ranked
LEFT JOIN training_examples AS known ON known.text_hash = ranked.text_hash
WHERE ranked.place = 1
