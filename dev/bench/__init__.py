"""`make bench`: how fast training and scoring are beside what a user would run instead, measured from scratch."""
