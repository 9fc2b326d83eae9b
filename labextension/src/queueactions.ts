/** What the panel's buttons do with queues. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, showErrorMessage } from '@jupyterlab/apputils';

import type { Api } from './api';
import { icon } from './icon';
import { showTaskLog } from './logview';
import type { IQueueActions } from './queuesection';
import { TasksView } from './tasks';

export function queueActions(app: JupyterFrontEnd, api: Api): IQueueActions {
  const told = async (name: string, work: Promise<unknown>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      await showErrorMessage(name, error as Error);
    }
  };
  return {
    tasks: async (site, { name }) => {
      const widget = new MainAreaWidget({ content: new TasksView(api, site, name, task => showTaskLog(app, api, site, name, task)) });
      widget.title.label = `Tasks of ${name}`;
      widget.title.icon = icon;
      widget.title.closable = true;
      app.shell.add(widget, 'main');
    },
    pause: (site, { name }) => told(name, api.pause(site, name)),
    resume: (site, { name }) => told(name, api.resume(site, name)),
    retry: (site, { name }) => told(name, api.retry(site, name)),
    login: site => told(site, api.login(site))
  };
}
