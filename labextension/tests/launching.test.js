/** What is asked for when jobs are to drain a queue: what can be seen, and nothing that was typed for another shape. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { fields, request, seen } from '../lib/launching.js';

const typed = { jobs: '3', queued: '2', nodes: '4', core_hours: '0.5', walltime: '2h', partition: 'debug', script: 'a {b}' };

test('each shape asks for its own', () => {
  const wishes = { walltime: '2h', partition: 'debug' };
  assert.deepEqual(request('jobs', true, typed), { jobs: 3, queued: 2, script: 'a {b}', wishes });
  assert.deepEqual(request('pack', true, typed), { jobs: 3, pack: true, script: 'a {b}', wishes: { nodes: 4, ...wishes } });
  assert.deepEqual(request('core_hours', true, typed), { core_hours: 0.5, script: 'a {b}', wishes: { nodes: 4, ...wishes } });
});

test('what is left empty is not asked for, nor what this machine has not', () => {
  assert.deepEqual(request('jobs', true, { jobs: '' }), { wishes: {} });
  assert.deepEqual(request('jobs', false, typed).wishes, { walltime: '2h' });
  assert.deepEqual(seen('jobs', false, typed), { jobs: '3', queued: '2', walltime: '2h', script: 'a {b}' });
  assert.ok(!fields('pack', false).some(field => field.key === 'partition'));
});
