/* scene.h - a conversation of peers as text, a line for each frame that arrives:
 *
 *   [  20] B > A  ACK applied A 2
 *
 * in brackets the ms since the scene began. Each round of deliveries takes 10 ms. Peers are called
 * A, B, C … by their index, and so are origins. The frames are decoded from docs/protocol.md, not
 * by src/core. */
#ifndef SCENE_H
#define SCENE_H

#include "harness.h"

typedef struct scene scene;

/* What `c` has on its way belongs to the scene. It lives until the test ends. */
scene *scene_begin(cluster *c);
/* Adds a line: what the test does, or what it sees. */
void scene_say(scene *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* One round: what is on its way arrives, 10 ms later. False: nothing was. */
bool scene_round(scene *s);
/* Rounds until nothing is on its way. */
void scene_deliver(scene *s);
/* The first frame on its way to a side of a wire gets lost. */
void scene_lose(scene *s, int w, int to_side);
/* A second passes, all peers tick, everything arrives. */
void scene_beat(scene *s);
/* Frames of type ACK get no lines from now on, where a scene is about something else. */
void scene_without_acks(scene *s);
/* Adds what peers have said since the scene began or this was called: errors, links that are
 * ready or gone. */
void scene_events(scene *s);
/* Fails the test unless the lines are these. */
void scene_is(scene *s, const char *lines);

#endif
