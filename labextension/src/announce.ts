/** Notifications: what happens to clusters while nobody looks at the panel. */

import { Notification } from '@jupyterlab/apputils';

import type { ICluster } from './api';
import type { Model } from './model';
import { waits } from './words';

const SOON = 600;
/** Seconds of walltime left at which it is announced. */

export function announce(model: Model): void {
  model.noticed.connect((_, text) => {
    Notification.info(text, { autoClose: 10000 });
  });
  model.moved.connect((_, { now, before }) => {
    const { name } = now.spec;
    if (now.state === 'ready' && before && waits(before)) {
      Notification.success(`${name} is ready`, { autoClose: 5000 });
    }
    if (now.state === 'ended' && now.error && before?.state !== 'ended') {
      Notification.error(`${name} ended: ${now.error['what']}`, { autoClose: false });
    }
    if (left(now) < SOON && before && left(before) >= SOON) {
      Notification.warning(`${name} has 10 minutes of walltime left`, { autoClose: false });
    }
  });
}

const left = (cluster: ICluster): number => (cluster.state === 'ended' ? Infinity : (cluster.walltime_left ?? Infinity));
